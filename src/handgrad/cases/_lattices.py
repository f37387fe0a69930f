"""Rows of losses over a lattice of paths: node by node, or over every path at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Case, Draw, edge


def transducer_loss(Z: Array, labels: Array, input_lengths: Array, label_lengths: Array, blank: int = 0) -> Array:
    """Node after node, in logarithms, the whole lattice; each example's end is picked from all of them."""
    _, time, count, classes = Z.shape
    log_P = jax.nn.log_softmax(Z.astype(jnp.promote_types(Z.dtype, jnp.float32)))
    emitted = jnp.eye(classes, dtype=log_P.dtype)[jnp.clip(labels, 0, classes - 1)]
    log_y = jnp.einsum("btuk,buk->btu", log_P[:, :, :-1], emitted)
    log_b = log_P[..., blank]
    nodes: dict[tuple[int, int], Array] = {(0, 0): jnp.zeros_like(log_b[:, 0, 0])}
    for t, u in [(t, u) for t in range(time) for u in range(count) if t + u]:
        ways = [nodes[t - 1, u] + log_b[:, t - 1, u]] if t else []
        ways += [nodes[t, u - 1] + log_y[:, t, u - 1]] if u else []
        nodes[t, u] = jnp.logaddexp(*ways) if len(ways) == 2 else ways[0]
    ends = jnp.stack([jnp.stack([nodes[t, u] + log_b[:, t, u] for u in range(count)]) for t in range(time)])
    return -ends[input_lengths - 1, label_lengths, jnp.arange(len(Z))].astype(Z.dtype)


def lattice(labels: Any, input_lengths: Any, label_lengths: Any, time: int, classes: int, scale: float = 1.0) -> Draw:
    """Normal logits of every node, and these labels and lengths."""
    labels = np.array(labels, int).reshape(len(labels), -1)
    shape = len(labels), time, labels.shape[1] + 1, classes
    return lambda rng: (scale * rng.standard_normal(shape), labels, np.array(input_lengths), np.array(label_lengths))


LAST_BLANK = {"blank": 2, "residuals": "recompute"}

TRANSDUCER = [
    Case(
        rules.transducer_loss,
        "lengths",
        lattice([[1, 2, 3], [2, 2, 0], [3, 0, 0], [0, 0, 0]], [4, 3, 2, 4], [3, 2, 1, 0], 4, 4),
        transducer_loss,
    ),
    edge(
        rules.transducer_loss,
        "last-blank",
        lattice([[0, 1], [1, 0]], [3, 1], [2, 2], 3, 3, 3.0),
        transducer_loss,
        LAST_BLANK,
    ),
    edge(rules.transducer_loss, "no-label", lattice([[], []], [1, 2], [0, 0], 2, 2), transducer_loss),
]
