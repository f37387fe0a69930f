"""Rows of rules/softmax_cross_entropy.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, distributions, fixed, labels, per_example, probabilities, with_target
from cases.softmax import log_softmax, logsumexp
from handgrad import layers

OP = "softmax_cross_entropy"
IGNORE = -100


def softmax_cross_entropy(Z, Y, class_weights=None, label_smoothing=0.0, ignore_index=None, z_loss=0.0, softcap=None):
    """From the definition: a distribution in each label's place, zeros where the label is to be ignored."""
    n = Z.shape[-1]
    S = Z if softcap is None else softcap * jnp.tanh(Z / softcap)
    counts = jnp.ones(Z.shape[:-1], Z.dtype)
    if jnp.issubdtype(Y.dtype, jnp.integer):
        if ignore_index is not None:
            counts = jnp.not_equal(Y, ignore_index).astype(Z.dtype)
        Y = jnp.eye(n, dtype=Z.dtype)[jnp.clip(Y, 0, n - 1)]
    Q = (1 - label_smoothing) * Y + label_smoothing / n
    if class_weights is not None:
        Q = Q * jnp.broadcast_to(class_weights, Q.shape)
    C = -jnp.sum(Q * log_softmax(S), -1) + z_loss * logsumexp(S) ** 2
    return per_example(counts * C)


def some_ignored(rng, shape):
    """Labels of which about a third are IGNORE, one of them surely, one surely not."""
    Y = np.where(rng.uniform(size=shape[:-1]) < 1 / 3, IGNORE, labels(rng, shape))
    Y.flat[:2] = IGNORE, 0
    return Y


def weighted(draw, n):
    """The same draw, and a weight for each class."""
    return lambda rng: (*draw(rng), rng.uniform(0.2, 2, n))


CASES = [
    Case(OP, "labels", with_target((5, 7), labels, 2.0), softmax_cross_entropy),
    Case(OP, "tokens", with_target((3, 2, 4), labels), softmax_cross_entropy),
    Case(OP, "distributions", with_target((5, 7), distributions), softmax_cross_entropy),
    Case(OP, "unnormalized", with_target((5, 7), probabilities), softmax_cross_entropy),
    Case(OP, "labels-smoothed", with_target((5, 7), labels), softmax_cross_entropy, {"label_smoothing": 0.1}),
    Case(
        OP,
        "distributions-smoothed",
        with_target((3, 2, 4), distributions),
        softmax_cross_entropy,
        {"label_smoothing": 0.3},
    ),
    Case(OP, "1e4", fixed([[1e4, -1e4, 0.0], [1e4, 0.0, 0.0]], [0, 2]), softmax_cross_entropy),
    Case(
        OP,
        "weighted-ignored",
        weighted(with_target((4, 3, 5), some_ignored), 5),
        softmax_cross_entropy,
        {"ignore_index": IGNORE},
    ),
    Case(
        OP,
        "distributions-weighted",
        weighted(with_target((3, 5), distributions), 5),
        softmax_cross_entropy,
        {"label_smoothing": 0.2, "z_loss": 0.01},
    ),
    Case(
        OP,
        "everything",
        weighted(with_target((3, 4, 5), some_ignored, 3.0), 5),
        softmax_cross_entropy,
        {"label_smoothing": 0.1, "ignore_index": IGNORE, "z_loss": 0.1, "softcap": 4.0},
    ),
]


LAYERS = {OP: layers.softmax_cross_entropy}
