"""Functions run in NumPy as JAX runs them step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from handgrad.crosscheck import check_rule
from handgrad.crosscheck.numerics.interpret import RULES
from handgrad.crosscheck.subject.stepwise import interpreted, stepwise

X = np.random.default_rng(0).standard_normal((4, 3))


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, dy: (3 * x**2 * dy,))


def everything(x):
    """Calls, loops, branches, transformations, a weak type, a primitive without a rule, a random key."""
    key = jax.random.key(0)
    last, rows = lax.scan(lambda carry, row: (carry * 0.5 + row, carry.sum()), x[0], x, reverse=True)
    yield from (last, rows, jax.jit(jnp.where)(x > 0, x, -x), cube(x), jax.vmap(jax.grad(cube))(x[0]), jax.nn.gelu(x))
    yield from (x * jnp.sqrt(2.0), lax.cond(True, lambda: x, lambda: -x), jnp.sort(x, 0), jax.random.uniform(key, (3,)))
    yield from (x @ x.T, x.sum(), (x > 0).sum(), x.argmax(1), x.at[1:].set(0), lax.map(jnp.cumsum, x), jnp.eye(3))
    yield jax.linearize(jnp.tanh, x)[1](x)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_as_jax(dtype):
    x = jax.device_put(X.astype(jnp.dtype(dtype)))
    expected = jax.jit(lambda x: list(everything(x)))(x)
    with stepwise(True):
        found = list(everything(x))
    traced = interpreted(lambda x: list(everything(x)), x)
    bound = 16 * float(jnp.finfo(dtype).eps)
    for k, (one, two, y) in enumerate(zip(found, traced, expected, strict=True)):
        assert isinstance(one, jax.Array)
        assert one.aval.weak_type == y.aval.weak_type, k
        for a in (one, two):
            assert (a.shape, a.dtype) == (y.shape, y.dtype), k
            np.testing.assert_allclose(np.asarray(a, float), np.asarray(y, float), bound, bound, err_msg=f"{k}")


def test_a_statistic_kept_only_of_numbers():
    # Under jit nothing is kept: only what is concrete at every step shows it.
    kept = []

    def forward(x):
        mean = jnp.tanh(x).mean()
        if not isinstance(mean, jax.core.Tracer):
            kept.append(mean)
        return jnp.sin(x) * 2, (x, kept[0] if kept else mean)

    def backward(residuals, dY):
        x, mean = residuals
        return (2 * jnp.cos(x) * dY * (mean / jnp.tanh(x).mean()),)

    report = check_rule(forward, backward, X, reference=lambda x: 2 * jnp.sin(x), control=False, repair=False)
    assert report.reason.startswith("no state kept between calls: step by step, at a second input, x is "), report


def test_what_numpy_finds_wrong_is_left_to_jax(monkeypatch):
    monkeypatch.setitem(RULES, "cos", lambda inputs, params: 0 * inputs[0])
    report = check_rule(lambda x: (jnp.sin(x), x), lambda x, dY: (jnp.cos(x) * dY,), X, control=False)
    assert report.ok, report
