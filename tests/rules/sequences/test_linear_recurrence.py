"""linear_recurrence: its associative scan is a loop over time."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same, passes
from rules.refusals import refuses

from handgrad import rules


def loop(A, B, H0, reverse):
    """One step after the other."""
    steps = jnp.moveaxis(A, 1, 0), jnp.moveaxis(B, 1, 0)
    H = jax.lax.scan(lambda h, step: 2 * (step[0] * h + step[1],), H0, steps, reverse=reverse)[1]
    return jnp.moveaxis(H, 0, 1)


def test_the_associative_scan_equals_a_loop():
    rng = np.random.default_rng(0)
    walks = [(1, False), (2, False), (3, False), (8, False), (33, False), (2, True), (33, True)]
    given = [[rng.uniform(-1, 1, shape) for shape in ((2, t, 3), (2, t, 3), (2, 3), (2, t, 3))] for t, _ in walks]

    @jax.jit
    def both(given):
        found, expected = [], []
        for (A, B, H0, dH), (_, reverse) in zip(given, walks, strict=True):
            found.append(passes(rules.linear_recurrence.with_options(reverse=reverse, associative=True), dH, A, B, H0))
            H, pullback = jax.vjp(lambda *a, reverse=reverse: loop(*a, reverse), A, B, H0)
            expected.append((H, pullback(dH)))
        return found, expected

    assert_same(*both(given))


def test_a_running_sum():
    """With decays of 1, H is the cumulative sum, and so is its cotangent from the other end."""
    B = np.arange(1.0, 6)[None, :, None]
    run = jax.jit(lambda *given: passes(rules.linear_recurrence, *given))
    H, (dA, dB, dH0) = run(np.ones_like(B), np.ones_like(B), B)
    assert np.ravel(H).tolist() == [1, 3, 6, 10, 15]
    assert np.ravel(dB).tolist() == [5, 4, 3, 2, 1]
    assert np.ravel(dA).tolist() == [0, 4 * 1, 3 * 3, 2 * 6, 1 * 10]
    assert dH0 is None


def test_linear_recurrence_of_the_wrong_shape():
    ones, rule = np.ones((2, 3, 4)), rules.linear_recurrence
    refuses(
        rule, "A must have shape (batch, time, n), one step at least, got float64 (3, 4)", ones[0], ones[0], ones[0]
    )
    refuses(rule, "B must have shape (2, 3, 4) like A, got float64 (2, 3, 1)", ones, ones[..., :1], ones[:, 0])
    refuses(rule, "associative must be True, False or None, got 1", ones, ones, ones[:, 0], associative=1)
    refuses(rule, "H0 must have shape (2, 4) (one state …), got float64 (1, 4)", ones, ones, ones[:1, 0])
