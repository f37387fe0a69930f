"""PyTorch's norms on the same numbers: values and all gradients in float64. It has channels at axis 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import layers, rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party

ROWS, TOKENS, IMAGES = (5, 6), (3, 4, 6), (2, 3, 4, 6)
every_shape = pytest.mark.parametrize("shape", [ROWS, TOKENS, IMAGES], ids=str)
spatial = pytest.mark.parametrize("shape", [TOKENS, IMAGES, (2, 2, 3, 2, 6)], ids=str)
parameters = pytest.mark.parametrize("affine", ["scale and shift", "scale", "shift", "neither"])
every_eps = pytest.mark.parametrize("eps", [1e-5, 0.3])
RESIDUALS = ["save", "recompute"]


def drawn(shape, affine):
    """X of another mean and variance for each example and feature, gamma, beta, and the cotangent."""
    rng = np.random.default_rng(len(shape))
    X = rng.standard_normal(shape) * rng.uniform(0.5, 3, shape[:1] + (1,) * (len(shape) - 1)) + 3 * rng.random(
        shape[-1]
    )
    gamma = rng.standard_normal(shape[-1]) if "scale" in affine else None
    beta = rng.standard_normal(shape[-1]) if "shift" in affine else None
    return X, gamma, beta, rng.standard_normal(shape)


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def leaves(*arrays):
    return [None if a is None else torch.tensor(a, requires_grad=True) for a in arrays]


def channels_first(function):
    return lambda x, *rest: function(x.movedim(-1, 1), *rest).movedim(1, -1)


def agree(op, function, arguments, dY, **options):
    """The rule and torch's function, on the same arguments: value and every gradient, whatever is kept."""
    given = leaves(*arguments)
    expected = function(*given)
    expected.backward(torch.tensor(dY))
    policies = [{}] if op == "batch_norm_inference" else [{"residuals": policy} for policy in RESIDUALS]
    for policy in policies:
        numbers = [None if a is None else jnp.asarray(a) for a in arguments]
        Y, residuals = getattr(rules, op).forward(*numbers, **options, **policy)
        cotangents = hg.materialize(getattr(rules, op).backward(residuals, jnp.asarray(dY), **options))
        assert relative_error(Y, expected.detach().numpy()) <= 1e-12
        for found, leaf in zip(cotangents, given, strict=True):
            assert (found is None) == (leaf is None)
            if leaf is not None and leaf.grad is not None:
                assert relative_error(found, leaf.grad.numpy()) <= 1e-10


@every_shape
@parameters
@every_eps
def test_layer_norm(shape, affine, eps):
    *arguments, dY = drawn(shape, affine)
    agree("layer_norm", lambda x, g, b: F.layer_norm(x, shape[-1:], g, b, eps), arguments, dY, eps=eps)


@pytest.mark.parametrize("affine", ["scale and shift", "neither"])
def test_layer_norm_over_two_axes(affine):
    """torch's normalized_shape of two axes is one axis here."""
    X, gamma, beta, dY = drawn((3, 24), affine)

    def function(x, g, b):
        g, b = (None if a is None else a.reshape(4, 6) for a in (g, b))
        return F.layer_norm(x.reshape(3, 4, 6), (4, 6), g, b).reshape(3, 24)

    agree("layer_norm", function, (X, gamma, beta), dY)


@every_shape
@pytest.mark.parametrize("affine", ["scale", "neither"])
@pytest.mark.parametrize("eps", [None, 1e-6, 0.3])
def test_rms_norm(shape, affine, eps):
    """torch's own eps, where none is given, is the dtype's."""
    X, gamma, _, dY = drawn(shape, affine)
    ours = np.finfo(np.float64).eps if eps is None else eps
    agree("rms_norm", lambda x, g: F.rms_norm(x, shape[-1:], g, eps), (X, gamma), dY, eps=ours)


@every_shape
@parameters
@pytest.mark.parametrize(("groups", "eps"), [(1, 0.3), (2, 1e-5), (3, 1e-5)])
def test_group_norm(shape, affine, groups, eps):
    """torch's own backward pass fails with a shift alone: it gets a scale of ones beside it."""
    *arguments, dY = drawn(shape, affine)

    def function(x, g, b):
        g = torch.ones_like(b) if g is None and b is not None else g
        return F.group_norm(x, groups, g, b, eps)

    agree("group_norm", channels_first(function), arguments, dY, groups=groups, eps=eps)


@spatial
@parameters
@every_eps
def test_instance_norm(shape, affine, eps):
    *arguments, dY = drawn(shape, affine)
    function = channels_first(lambda x, g, b: F.instance_norm(x, weight=g, bias=b, eps=eps))
    agree("instance_norm", function, arguments, dY, eps=eps)


@every_shape
@parameters
@every_eps
def test_batch_norm_in_training(shape, affine, eps):
    *arguments, dY = drawn(shape, affine)
    function = channels_first(lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True, eps=eps))
    agree("batch_norm", function, arguments, dY, eps=eps)


@every_shape
@parameters
@every_eps
def test_batch_norm_in_evaluation(shape, affine, eps):
    """torch gives running statistics no gradient."""
    X, gamma, beta, dY = drawn(shape, affine)
    rng = np.random.default_rng(9)
    mean, variance = rng.standard_normal(6), rng.uniform(0.1, 3, 6)

    def function(x, g, b, m, v):
        return channels_first(lambda x: F.batch_norm(x, m.detach(), v.detach(), g, b, eps=eps))(x)

    agree("batch_norm_inference", function, (X, gamma, beta, mean, variance), dY, eps=eps)


@spatial
def test_instance_norm_with_running_statistics(shape):
    """use_input_stats=False: what torch computes is batch_norm_inference."""
    X, gamma, beta, dY = drawn(shape, "scale and shift")
    rng = np.random.default_rng(9)
    mean, variance = rng.standard_normal(6), rng.uniform(0.1, 3, 6)

    def function(x, g, b, m, v):
        return channels_first(lambda x: F.instance_norm(x, m.detach(), v.detach(), g, b, use_input_stats=False))(x)

    agree("batch_norm_inference", function, (X, gamma, beta, mean, variance), dY)


@pytest.mark.parametrize(
    ("op", "function", "options"),
    [
        ("layer_norm", lambda x, g, b: F.layer_norm(x, (6,), g, b), {}),
        ("group_norm", channels_first(lambda x, g, b: F.group_norm(x, 2, g, b)), {"groups": 2}),
        ("instance_norm", channels_first(lambda x, g, b: F.instance_norm(x, weight=g, bias=b)), {}),
        ("batch_norm", channels_first(lambda x, g, b: F.batch_norm(x, None, None, g, b, training=True)), {}),
    ],
    ids=["layer_norm", "group_norm", "instance_norm", "batch_norm"],
)
def test_large_mean_and_no_variance(op, function, options):
    """Numbers around 1000, a constant row, a constant example and a constant feature."""
    X, gamma, beta, dY = drawn((3, 4, 6), "scale and shift")
    X = X + 1e3
    X[0, 1], X[2], X[:, :, 3] = 2.0, 2.0, 2.0
    agree(op, function, (X, gamma, beta), dY, **options)


@pytest.mark.parametrize("momentum", [0.1, 0.4])
def test_running_averages(momentum):
    """Three batches through torch's BatchNorm2d and through the layer; torch's variance is the unbiased one."""
    torch_norm = torch.nn.BatchNorm2d(6, momentum=momentum, dtype=torch.float64)
    layer = layers.batch_norm()
    running = layers.BatchStatistics(jnp.zeros(6), jnp.ones(6))
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal(IMAGES) * 2 + 1
        torch_norm(torch.tensor(x).movedim(-1, 1))
        params = layer.init(jax.random.key(0), jnp.asarray(x))
        (seen,) = layers.batch_statistics(layer.forward(params, jnp.asarray(x))[1])
        N = x.size // 6
        seen = seen._replace(variance=seen.variance * N / (N - 1))
        running = jax.tree.map(lambda old, new: (1 - momentum) * old + momentum * new, running, seen)
    assert relative_error(running.mean, torch_norm.running_mean.numpy()) <= 1e-12
    assert relative_error(running.variance, torch_norm.running_var.numpy()) <= 1e-12
    y, _ = layers.batch_norm_inference(*running).forward(params, jnp.asarray(x))
    expected = torch_norm.eval()(torch.tensor(x).movedim(-1, 1)).movedim(1, -1)
    assert relative_error(y, expected.detach().numpy()) <= 1e-12
