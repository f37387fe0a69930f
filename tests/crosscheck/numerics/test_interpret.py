"""Programs run in NumPy as in JAX: every primitive that has a rule, in one compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.crosscheck.errors.program.tracing import trace
from handgrad.crosscheck.numerics.interpret import RULES

RNG = np.random.default_rng(0)
ROUNDED_HALF_AWAY = lax.RoundingMethod.AWAY_FROM_ZERO
UNSEEN = {"add_any", "clamp", "complex", "copy", "return", "stop_gradient"}  # without a line of their own below


def functions(x, u, n, z):
    """Of numbers, of numbers in (0, 1), of integers, of complex numbers."""
    yield from (lax.abs(x), lax.ceil(x), lax.floor(x), lax.round(x), lax.round(x, ROUNDED_HALF_AWAY), lax.sign(x))
    yield from (lax.cbrt(x), lax.cos(x), lax.cosh(x), lax.sin(x), lax.sinh(x), lax.tan(x), lax.tanh(x))
    yield from (lax.acos(u), lax.asin(u), lax.atan(x), lax.atanh(u), lax.acosh(1 + u), lax.asinh(x), lax.atan2(x, u))
    yield from (lax.exp(x), lax.exp2(x), lax.expm1(x), lax.log(u), lax.log1p(u), lax.logistic(x), lax.sqrt(u))
    yield from (lax.rsqrt(u), lax.square(x), lax.integer_pow(x, 3), lax.integer_pow(x, -2), lax.pow(u, x))
    yield from (lax.erf(x), lax.erfc(x), lax.erf_inv(u), lax.lgamma(u), lax.digamma(u), lax.rem(x, u), lax.neg(x))
    yield from (x + u, x - u, x * u, x / u, lax.max(x, u), lax.min(x, u), lax.clamp(-0.5, x, 0.5), lax.is_finite(x))
    yield from (
        x > u,
        x < u,
        x >= u,
        x <= u,
        x == u,
        x != u,
        n & 3,
        n | 3,
        n ^ 3,
        ~n,
        n // 2,
        lax.div(n, jnp.int64(-2)),
    )
    yield from (lax.real(z), lax.imag(z), lax.conj(z), lax.complex(x, u), lax.sign(z), abs(z), x.astype(np.float32))
    yield from (jnp.where(x > 0, x, u), lax.select_n(jnp.abs(n) % 3, n, 2 * n, 3 * n), lax.iota(np.int32, 5))
    yield from (x.sum(0), x.max(1), x.min(0), x.prod(1), (x > 0).any(0), (x > 0).all(1), x.argmax(1), x.argmin(0))
    yield from (lax.cumsum(x, 1), lax.cumprod(x, 0, reverse=True), lax.cummax(x, 1), lax.cummin(x, 0, reverse=True))
    yield from (x.T, x.reshape(20), x[None, :, 0], lax.squeeze(x[:1], (0,)), lax.rev(x, (1,)), x[1:, ::2], n.sum())
    yield from (jnp.concatenate([x, u], 1), *jnp.split(x, 2, 1), jnp.broadcast_to(x[:, :1], (3, 5, 4)), x @ u.T)
    yield from (lax.pad(x, 7.0, ((1, 2, 1), (-1, 1, 0))), lax.dynamic_slice(x, (n[0, 0], 1), (2, 3)))
    yield from (
        lax.dynamic_update_slice(x, u[:2], (9, 0)),
        jnp.einsum("bij,bjk->bki", x.reshape(2, 2, 5), u.reshape(2, 5, 2)),
    )


def test_every_rule():
    leaves = [RNG.standard_normal((5, 4)), RNG.uniform(0.1, 0.9, (5, 4)), RNG.integers(0, 9, (5, 4))]
    leaves.append(leaves[0] + 1j * leaves[1])

    def hand(leaves, dYs):
        return [leaves[0]], list(functions(*leaves))

    program = trace(hand, leaves, [leaves[0]])
    values = program.run(leaves, [leaves[0]])
    expected = jax.jit(lambda leaves: list(functions(*leaves)))(leaves)
    for slot, step, y in zip(program.cotangents, program.steps[-len(expected) :], expected, strict=True):
        assert (values[slot].dtype, values[slot].shape) == (y.dtype, y.shape), step
        np.testing.assert_allclose(values[slot], y, rtol=1e-6 if y.dtype == np.float32 else 1e-12, atol=1e-12)
    assert set(RULES) <= {step.name for step in program.steps} | UNSEEN


def test_a_scan_step_by_step():
    def hand(leaves, dYs):
        def step(carry, x):
            return (carry[0] + x, carry[1] * 2), carry[0] * x

        (last, two), ys = jax.lax.scan(step, (leaves[0][0], 1.0), leaves[0], reverse=True)
        return [last], [ys, two]

    (X,) = [RNG.standard_normal((4, 3))]
    program = trace(hand, [X], [X[0]])
    assert {one.name for step in program.steps for one in step.all()} > {"scan", "add", "mul"}
    values = program.run([X], [X[0]])
    before = np.cumsum(X[::-1], 0)[::-1] - X + X[0]
    np.testing.assert_allclose(values[program.cotangents[0]], before * X, rtol=1e-12)
    assert values[program.cotangents[1]] == 16
    # A change inside is made in every iteration.
    (inner,) = [one for step in program.steps if step.body for one in step.body.steps if one.name == "add"]
    changed = program.rerun(program.steps, values, {inner.site: lambda frame: [frame.inputs[0] - frame.inputs[1]]})
    np.testing.assert_allclose(changed[program.Ys[0]], X[0] - X.sum(0), rtol=1e-12)
