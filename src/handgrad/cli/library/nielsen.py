"""Nielsen's network of two sigmoid layers by BP1 to BP4: a row for the mini-batch and one for a single example."""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.cli.library.basics import linear
from handgrad.cli.library.entry import Arrays, Entry, normal, per_example


def two_layers(A: Any, W1: Any, B1: Any, W2: Any, B2: Any, Y: Any) -> Any:
    """Nielsen's network of two sigmoid layers under his quadratic cost, for rows of examples."""
    A1 = jax.nn.sigmoid(linear(A, W1, B1))
    return per_example(jnp.square(jax.nn.sigmoid(linear(A1, W2, B2)) - Y) / 2)


def two_layers_forward(A: Any, W1: Any, B1: Any, W2: Any, B2: Any, Y: Any) -> tuple[Any, Any]:
    """The same, and what BP1 to BP4 need."""
    A1 = jax.nn.sigmoid(linear(A, W1, B1))
    A2 = jax.nn.sigmoid(linear(A1, W2, B2))
    return per_example(jnp.square(A2 - Y) / 2), (A, W2, A1, A2, Y, W1)


def two_layers_backward(residuals: Any, dC: Any) -> Arrays:
    """BP1 to BP4 over the mini-batch. The first layer's input and the target are under no weight: the chain's last
    link to them is written out."""
    A, W2, A1, A2, Y, W1 = residuals
    dA2 = dC[:, None] * (A2 - Y)
    Delta2 = rules.bp1_batch(dA2, A2 * (1 - A2))
    Delta1 = rules.bp2_batch(W2, Delta2, A1 * (1 - A1))
    dA = rules.bp2_batch(W1, Delta1, jnp.ones_like(A))
    dW1, dW2 = rules.bp4_batch(A, Delta1), rules.bp4_batch(A1, Delta2)
    return dA, dW1, rules.bp3_batch(Delta1), dW2, rules.bp3_batch(Delta2), -dA2


def column(a: Any, w1: Any, b1: Any, w2: Any, b2: Any, y: Any) -> Any:
    """The same network for one example, every vector a column: the cost, a number."""
    a1 = jax.nn.sigmoid(jnp.einsum("oi,ij->oj", w1, a) + b1)
    return jnp.sum(jnp.square(jax.nn.sigmoid(jnp.einsum("oi,ij->oj", w2, a1) + b2) - y)) / 2


def column_forward(a: Any, w1: Any, b1: Any, w2: Any, b2: Any, y: Any) -> tuple[Any, Any]:
    """The same, and what BP1 to BP4 need."""
    a1 = jax.nn.sigmoid(w1 @ a + b1)
    a2 = jax.nn.sigmoid(w2 @ a1 + b2)
    return jnp.sum(jnp.square(a2 - y)) / 2, (a, w2, a1, a2, y, w1)


def column_backward(residuals: Any, dC: Any) -> Arrays:
    """BP1 to BP4 for one example, as in Nielsen's second chapter."""
    a, w2, a1, a2, y, w1 = residuals
    da2 = dC * (a2 - y)
    delta2 = rules.bp1_example(da2, a2 * (1 - a2))
    delta1 = rules.bp2_example(w2, delta2, a1 * (1 - a1))
    da = rules.bp2_example(w1, delta1, jnp.ones_like(a))
    dw1, dw2 = rules.bp4_example(a, delta1), rules.bp4_example(a1, delta2)
    return da, dw1, rules.bp3_example(delta1), dw2, rules.bp3_example(delta2), -da2


NIELSEN = [
    Entry(
        "bp_batch",
        "rows",
        normal((5, 4), (4, 3), (3,), (3, 2), (2,), (5, 2)),
        two_layers,
        pair=(two_layers_forward, two_layers_backward),
    ),
    Entry(
        "bp_example",
        "column",
        normal((4, 1), (3, 4), (3, 1), (2, 3), (2, 1), (2, 1)),
        column,
        pair=(column_forward, column_backward),
    ),
]
