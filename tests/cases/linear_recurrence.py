"""Rows of rules/linear_recurrence.py."""

import jax.numpy as jnp

from cases.case import Case, normal
from handgrad import layers


def linear_recurrence(A, B, H0=None, reverse=False):
    """One step after the other."""
    time = A.shape[1]
    h, H = jnp.zeros_like(A[:, 0]) if H0 is None else H0, [None] * time
    for t in reversed(range(time)) if reverse else range(time):
        H[t] = h = A[:, t] * h + B[:, t]
    return jnp.stack(H, axis=1)


CASES = [
    Case("linear_recurrence", "state", normal((2, 5, 3), (2, 5, 3), (2, 3)), linear_recurrence),
    Case("linear_recurrence", "reverse", normal((2, 4, 3), (2, 4, 3), (2, 3)), linear_recurrence, {"reverse": True}),
    Case("linear_recurrence", "from-zeros", normal((3, 7, 2), (3, 7, 2)), linear_recurrence),
]


LAYERS = {"linear_recurrence": layers.linear_recurrence}
