"""Norms: a few ulps, or twice the best of jax.grad's and PyTorch's, for rows of any size and any offset."""

import jax.numpy as jnp
import numpy as np
import pytest
from precision import Subject, assert_precise, autodiff, by_hand, by_torch

WIDTH = 8
# Neither X̂ nor dX has a small element, which would be rounded to the size of the others.
PATTERN = np.array([1.0, -2.0, 3.0, -1.5, 2.5, -0.7, 1.8, -2.6])
COTANGENT = np.array([1.0, 0.5, -0.3, -1.7, -0.6, -1.1, 1.9, -1.5])


def rows(dtype):
    """Rows about PATTERN times each power of two up to 10³⁰ (docs/precision.md says why), and with offsets."""
    info, rng = jnp.finfo(dtype), np.random.default_rng(0)
    sizes = np.exp2(np.arange(info.minexp + 12, min(info.maxexp - 3, 101), dtype=np.float64))
    offsets = np.concatenate([np.zeros(len(sizes)), 10.0 ** np.arange(-3, 7), -(10.0 ** np.arange(-3, 7))])
    sizes = np.concatenate([sizes, np.ones(20)])[:, None]
    return (sizes * PATTERN * rng.uniform(0.9, 1.1, (len(sizes), WIDTH)) + offsets[:, None]).astype(dtype)


def standardized(axes, eps=1e-5):
    """X̂ as a JAX user would write it."""

    def function(X):
        mean = jnp.mean(X, axes, keepdims=True)
        variance = jnp.var(X, axes, keepdims=True)
        return (X - mean) / jnp.sqrt(variance + eps)

    return function


def norm(op, primal, of_torch, shape=lambda X: X, **options):
    """The rows in the shape that makes each of them one set of the norm."""

    def inputs(dtype):
        X = rows(dtype)
        dY = (COTANGENT * np.random.default_rng(1).uniform(0.9, 1.1, X.shape)).astype(dtype)
        return shape(X), shape(dY)

    rivals = {"jax.grad": autodiff(primal), **by_torch(of_torch)}
    # An element is rounded to the size of its set's largest.
    return Subject(op, "rows", ("Y", "dX"), inputs, autodiff(primal), None, rivals, options, {"Y": 8, "dX": 32})


NORMS = [
    norm("layer_norm", standardized(-1), lambda t, x: t.nn.functional.layer_norm(x, (WIDTH,))),
    norm(
        "rms_norm",
        lambda X: X / jnp.sqrt(jnp.mean(X**2, -1, keepdims=True) + 1e-6),
        lambda t, x: t.nn.functional.rms_norm(x, (WIDTH,), eps=1e-6),
    ),
    norm(
        "group_norm",
        standardized((1, 2)),
        lambda t, x: t.nn.functional.group_norm(x.transpose(1, 2), 1).transpose(1, 2),
        lambda X: X.reshape(len(X), WIDTH // 2, 2),
        groups=1,
    ),
    norm(
        "instance_norm",
        standardized(1),
        lambda t, x: t.nn.functional.instance_norm(x.transpose(1, 2)).transpose(1, 2),
        lambda X: X[..., None],
    ),
    norm(
        "batch_norm",
        standardized(0),
        lambda t, x: t.nn.functional.batch_norm(x, None, None, training=True),
        np.transpose,
    ),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("subject", NORMS, ids=str)
def test_over_the_whole_range(subject, dtype):
    assert_precise(subject, dtype)


@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 1e30), (jnp.float16, 2e4)], ids=["float32", "float16"])
@pytest.mark.parametrize("subject", NORMS, ids=str)
def test_large_rows(subject, dtype, size):
    """Where a square overflows in X's dtype: no rival sets the bar, and dX is of the size of 1 / X."""
    X = subject.inputs(np.float64)[0]
    examples = X.shape[1] if subject.op == "batch_norm" else len(X)
    one = examples - 10  # of size 1, with an offset of 1
    X = np.asarray(size * (X[:, one : one + 1] if subject.op == "batch_norm" else X[one : one + 1]), dtype)
    assert np.isfinite(X).all()
    assert np.abs(X).max() > size / 4
    dY = np.resize(COTANGENT, X.shape).astype(dtype)
    truth = subject.truth(*(np.asarray(a, np.float64) for a in (X, dY)))
    for found, exact in zip(
        by_hand(subject.op, **subject.options)(jnp.asarray(X), jnp.asarray(dY)), truth, strict=True
    ):
        bar = 8 * float(jnp.finfo(dtype).eps) * np.abs(exact).max()
        np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=0, atol=max(bar, 1e-7))
