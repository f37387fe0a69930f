"""The hinge loss: its tie, edges, every digit over the whole range of float32 and bfloat16, and what it refuses."""

import jax
import numpy as np
import optax
from helpers import optimized_jit
from precision import over_the_whole_range
from rules.losses.rows import assert_edges, assert_rounded_once, outcomes, subject
from rules.refusals import refuses

from handgrad import rules


def truth(a, y, d):
    inside = (1 + np.sign(1 - y * a)) / 2
    return np.maximum(0, 1 - y * a), -d * y * inside, -d * a * inside


SUBJECT = subject("hinge_loss", truth, (-1.0, 1.0), bars={"C": 2, "dA": 2, "dY": 2})
test_over_the_whole_range = over_the_whole_range([SUBJECT])


def test_a_tie_is_shared():
    """As jnp.maximum does, so that jax.grad of optax's loss agrees."""
    a, y = np.array([[1.0, -1.0, 0.999, 1.001]]), np.array([[1.0, -1.0, 1.0, 1.0]])
    ((_, dA, _),) = outcomes([("hinge_loss", a, y)])
    assert dA.tolist() == [[-0.5, 0.5, -1.0, 0.0]]
    np.testing.assert_array_equal(dA, optimized_jit(jax.grad(lambda a: optax.losses.hinge_loss(a, y).sum()))(a))


def test_edges():
    assert_edges(
        zero_times_infinity=[("hinge_loss", [[np.inf, -np.inf, 0.5]], [[1.0, -1.0, 1.0]])],
        weightless=[("hinge_loss", [[-np.inf]], [[1.0]])],
        far=[("hinge_loss", [[1.0, -1.0, -0.5]], [[1.0, 1.0, -1.0]])],
    )
    assert_rounded_once("hinge_loss", -1.0, 1.0)


def test_bad_input():
    sentence = "the target Y must have shape (4, 5) like the prediction A, got float64 (4, 1)"
    refuses(rules.hinge_loss, sentence, np.zeros((4, 5)), np.zeros((4, 1)))
