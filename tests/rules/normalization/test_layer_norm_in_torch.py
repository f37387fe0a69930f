"""PyTorch's norms on the same numbers: values and all gradients in float64. It has channels at axis 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from in_torch import F, assert_rules_agree, channels_first, torch

from handgrad import layers, rules

ROWS, TOKENS, IMAGES, VOLUMES = (5, 6), (3, 4, 6), (2, 3, 4, 6), (2, 2, 3, 2, 6)
STATISTICS = np.random.default_rng(9).standard_normal(6), np.random.default_rng(10).uniform(0.1, 3, 6)


def drawn(shape, affine="scale and shift"):
    """X of another mean and variance for each example and feature, gamma and beta."""
    rng = np.random.default_rng(len(shape))
    sizes = rng.uniform(0.5, 3, shape[:1] + (1,) * (len(shape) - 1))
    X = rng.standard_normal(shape) * sizes + 3 * rng.random(shape[-1])
    gamma, beta = rng.standard_normal((2, shape[-1]))
    return X, gamma if "scale" in affine else None, beta if "shift" in affine else None


def group_norm(x, groups, g, b, eps):
    """Torch's own backward pass fails with a shift alone: it gets a scale of ones beside it."""
    return F.group_norm(x, groups, torch.ones_like(b) if g is None and b is not None else g, b, eps)


def given(x, g, b, m, v, eps):
    """Torch gives running statistics no gradient."""
    return F.batch_norm(x, m.detach(), v.detach(), g, b, eps=eps)


# What the rule is called with -> torch's function of the same arguments.
NORMS = {
    "layer_norm": lambda eps: lambda x, g, b: F.layer_norm(x, x.shape[-1:], g, b, eps),
    "rms_norm": lambda eps: lambda x, g: F.rms_norm(x, x.shape[-1:], g, eps),
    "group_norm": lambda eps, groups: channels_first(lambda x, g, b: group_norm(x, groups, g, b, eps)),
    "instance_norm": lambda eps: channels_first(lambda x, g, b: F.instance_norm(x, weight=g, bias=b, eps=eps)),
    "batch_norm": lambda eps: channels_first(lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True, eps=eps)),
    "batch_norm_inference": lambda eps: channels_first(lambda *args: given(*args, eps)),
}
# Each shape, each choice of parameters, each eps and each number of groups with the others at least once.
SETTINGS = [
    (ROWS, "scale and shift", 1e-5, 1),
    (ROWS, "neither", 0.3, 2),
    (TOKENS, "scale", 0.3, 3),
    (TOKENS, "scale and shift", 1e-5, 2),
    (IMAGES, "shift", 0.3, 2),
    (IMAGES, "neither", 1e-5, 3),
    (VOLUMES, "scale and shift", 0.3, 1),
]


@pytest.mark.parametrize("op", NORMS)
def test_norm(op):
    rows = {}
    for shape, affine, eps, groups in SETTINGS:
        if (op == "instance_norm" and len(shape) == 2) or (op == "rms_norm" and affine == "shift"):
            continue
        options = {"eps": eps} | ({"groups": groups} if op == "group_norm" else {})
        arguments = drawn(shape, affine)[: 2 if op == "rms_norm" else 3]
        if op == "batch_norm_inference":
            arguments += STATISTICS
        for policy in [{}] if op == "batch_norm_inference" else [{"residuals": r} for r in ("save", "recompute")]:
            rule = getattr(rules, op).with_options(**options, **policy)
            rows[f"{shape} {affine} {policy}"] = rule, NORMS[op](**options), arguments
    assert_rules_agree(rows, 1e-11)


def test_settings_of_torchs_own():
    """normalized_shape of two axes, the eps that rms_norm has by default, and instance norm by running statistics."""
    X, gamma, beta = drawn((3, 24))

    def two_axes(x, g, b):
        g, b = (None if a is None else a.reshape(4, 6) for a in (g, b))
        return F.layer_norm(x.reshape(3, 4, 6), (4, 6), g, b).reshape(3, 24)

    def running(x, g, b, m, v):
        return channels_first(lambda x: F.instance_norm(x, m.detach(), v.detach(), g, b, use_input_stats=False))(x)

    rows = {
        "two axes": (rules.layer_norm, two_axes, (X, gamma, beta)),
        "two axes, neither": (rules.layer_norm, two_axes, (X, None, None)),
        "eps": (rules.rms_norm.with_options(eps=2.0**-52), lambda x, g: F.rms_norm(x, (24,), g, None), (X, gamma)),
        "running statistics": (rules.batch_norm_inference, running, (*drawn(TOKENS), *STATISTICS)),
    }
    # Numbers around 1000, a constant row, a constant example and a constant feature.
    X, gamma, beta = drawn(TOKENS)
    X = X + 1e3
    X[0, 1], X[2], X[:, :, 3] = 2.0, 2.0, 2.0
    for op, options in (("layer_norm", {}), ("group_norm", {"groups": 2}), ("instance_norm", {}), ("batch_norm", {})):
        rule = getattr(rules, op).with_options(**options)
        rows[f"large mean, {op}"] = rule, NORMS[op](eps=1e-5, **options), (X, gamma, beta)
    assert_rules_agree(rows, 1e-10)


def test_running_averages():
    """Three batches through torch's BatchNorm2d and through the layer; torch's variance is the unbiased one."""
    momentum = 0.4
    torch_norm = torch.nn.BatchNorm2d(6, momentum=momentum, dtype=torch.float64)
    layer = layers.batch_norm()
    params = layers.NormParams(jnp.ones(6), jnp.zeros(6))
    running = layers.BatchStatistics(np.zeros(6), np.ones(6))
    statistics = optimized_jit(lambda x: layers.batch_statistics(layer.forward(params, x)[1]))
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal(IMAGES) * 2 + 1
        torch_norm(torch.tensor(x).movedim(-1, 1))
        (seen,) = jax.tree.map(np.asarray, statistics(x))
        N = x.size // 6
        seen = seen._replace(variance=seen.variance * N / (N - 1))
        running = jax.tree.map(lambda old, new: (1 - momentum) * old + momentum * new, running, seen)
    assert_same(tuple(running), (torch_norm.running_mean.numpy(), torch_norm.running_var.numpy()))
    y = optimized_jit(lambda running, x: layers.batch_norm_inference(*running).forward(params, x)[0])(running, x)
    expected = torch_norm.eval()(torch.tensor(x).movedim(-1, 1)).movedim(1, -1)
    assert_same(y, expected.detach().numpy())
