"""Margin losses: ties, edges, every digit of the hinge loss over the whole range of float32 and bfloat16, refusals."""

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


def test_kinks_of_triplets_and_rankings():
    """Half the slope where the margin is just met; none of a distance of 0, nor NaN; 1e30 in float32."""
    anchor, other = np.array([[1.0, 2.0]]), np.array([[4.0, 6.0]])
    large = np.array([[3e30, 4e30]], np.float32)
    met, same, tie, far = outcomes(
        [
            ("triplet_loss", anchor, anchor, other, {"margin": 5.0}),
            ("triplet_loss", anchor, anchor, anchor, {"margin": 0.5}),
            ("margin_ranking_loss", np.array([[1.0]]), np.array([[0.5]]), np.array([[1.0]]), {"margin": 0.5}),
            ("triplet_loss", large, 0 * large, -large, {"margin": 2.0}),
        ]
    )
    for found, expected in zip(met, ([0.0], [[0.3, 0.4]], [[0.0, 0.0]], [[-0.3, -0.4]]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-15)
    assert [a.tolist() for a in same] == [[0.5]] + [[[0.0, 0.0]]] * 3
    assert [a.tolist() for a in tie] == [[0.0], [[-0.5]], [[0.5]], [[-0.25]]]
    assert far[0] == 0

    close = large * np.float32(1.0), large * np.float32(2), large * np.float32(1.5)
    ((C, *cotangents),) = outcomes([("triplet_loss", *close)])
    np.testing.assert_allclose(C, [2.5e30], rtol=1e-6)
    assert all(np.isfinite(d).all() for d in cotangents)


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
    A = np.zeros((4, 5))
    refuses(
        rules.margin_ranking_loss,
        "the scores B must have shape (4, 5) like the scores A, got float64 (4, 1)",
        A,
        A[:, :1],
        A,
    )
    refuses(
        rules.triplet_loss,
        "the negatives N must have shape (4, 5) like the anchors A, got float64 (4, 1)",
        A,
        A,
        A[:, :1],
    )
    refuses(rules.triplet_loss, "margin must be a positive number, got -1", A, A, A, margin=-1)
