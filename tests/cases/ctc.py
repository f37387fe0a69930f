"""Rows of rules/ctc.py."""

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import Case
from handgrad import layers

NEVER = -1e30  # log 0, near enough, and without the NaN that autodiff makes of −∞ − −∞


def ctc_loss(Z, labels, input_lengths, label_lengths, blank=0):
    """A chain of transition matrices between the 2 max_labels + 1 states, in logarithms, example by example."""

    def of_one(logits, labels, frames, length):
        log_p = jax.nn.log_softmax(logits)
        states = jnp.full(2 * len(labels) + 1, blank).at[1::2].set(labels)
        count = len(states)
        step = jnp.arange(count)[None, :] - jnp.arange(count)[:, None]  # from row to column
        differs = (states[None, :] != blank) & (states[None, :] != states[:, None])
        log_T = jnp.where((step == 0) | (step == 1) | ((step == 2) & differs), 0.0, NEVER).astype(log_p.dtype)

        def one_frame(log_alpha, frame):
            log_q, live = frame
            moved = jax.nn.logsumexp(log_alpha[:, None] + log_T, axis=0) + log_q[states]
            return jnp.where(live, moved, log_alpha), None

        log_alpha = jnp.where(jnp.arange(count) == 0, 0.0, NEVER).astype(log_p.dtype)
        log_alpha, _ = jax.lax.scan(one_frame, log_alpha, (log_p, jnp.arange(len(logits)) < frames))
        at_end = (jnp.arange(count) == 2 * length) | (jnp.arange(count) == 2 * length - 1)
        return -jax.nn.logsumexp(jnp.where(at_end, log_alpha, NEVER))

    wide = Z.astype(jnp.promote_types(Z.dtype, jnp.float32))
    return jax.vmap(of_one)(wide, labels, input_lengths, label_lengths).astype(Z.dtype)


def sequences(labels, input_lengths, label_lengths, time, classes, scale=1.0):
    """Normal logits, and these labels and lengths."""

    def draw(rng):
        Z = scale * rng.standard_normal((len(labels), time, classes))
        return Z, np.array(labels, int).reshape(len(labels), -1), np.array(input_lengths), np.array(label_lengths)

    return draw


CASES = [
    Case(
        "ctc_loss",
        "lengths",
        sequences([[1, 2, 3], [2, 2, 0], [3, 0, 0], [0, 0, 0]], [6, 5, 4, 3], [3, 2, 1, 0], 6, 4),
        ctc_loss,
    ),
    Case(
        "ctc_loss",
        "last-blank",
        sequences([[0, 0], [1, 0]], [5, 2], [2, 2], 5, 3, scale=3.0),
        ctc_loss,
        {"blank": 2, "residuals": "recompute"},
    ),
    Case("ctc_loss", "no-frame", sequences([[], []], [1, 0], [0, 0], 1, 2), ctc_loss),
]


LAYERS = {"ctc_loss": layers.ctc_loss}
