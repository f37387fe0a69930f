"""Nielsen's network of two sigmoid layers by BP1 to BP4: a row for the mini-batch and one for a single example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, normal
from handgrad.cases.linear import linear


def two_layers(A: Array, W1: Array, B1: Array, W2: Array, B2: Array, Y: Array) -> Array:
    """Nielsen's network under his quadratic cost, for rows of examples."""
    A1 = jax.nn.sigmoid(linear(A, W1, B1))
    return jnp.sum(jnp.square(jax.nn.sigmoid(linear(A1, W2, B2)) - Y) / 2, axis=1)


def bp_batch_forward(A: Array, W1: Array, B1: Array, W2: Array, B2: Array, Y: Array) -> tuple[Array, Arrays]:
    """The same, and what BP1 to BP4 need."""
    A1 = jax.nn.sigmoid(linear(A, W1, B1))
    A2 = jax.nn.sigmoid(linear(A1, W2, B2))
    return jnp.sum(jnp.square(A2 - Y) / 2, axis=1), (A, W2, A1, A2, Y, W1)


def bp_batch_backward(residuals: Arrays, dC: Array) -> Arrays:
    """BP1 to BP4 over the mini-batch. No equation gives the cotangents of the input and the target: they are written
    out."""
    A, W2, A1, A2, Y, W1 = residuals
    dA2 = dC[:, None] * (A2 - Y)
    Delta2 = rules.bp1_batch(dA2, A2 * (1 - A2))
    Delta1 = rules.bp2_batch(W2, Delta2, A1 * (1 - A1))
    dA = rules.bp2_batch(W1, Delta1, jnp.ones_like(A))
    dW1, dW2 = rules.bp4_batch(A, Delta1), rules.bp4_batch(A1, Delta2)
    return dA, dW1, rules.bp3_batch(Delta1), dW2, rules.bp3_batch(Delta2), -dA2


def column(a: Array, w1: Array, b1: Array, w2: Array, b2: Array, y: Array) -> Array:
    """The same network for one example, every vector a column: the cost, a number."""
    a1 = jax.nn.sigmoid(jnp.einsum("oi,ij->oj", w1, a) + b1)
    return jnp.sum(jnp.square(jax.nn.sigmoid(jnp.einsum("oi,ij->oj", w2, a1) + b2) - y)) / 2


def bp_example_forward(a: Array, w1: Array, b1: Array, w2: Array, b2: Array, y: Array) -> tuple[Array, Arrays]:
    """The same, and what BP1 to BP4 need."""
    a1 = jax.nn.sigmoid(w1 @ a + b1)
    a2 = jax.nn.sigmoid(w2 @ a1 + b2)
    return jnp.sum(jnp.square(a2 - y)) / 2, (a, w2, a1, a2, y, w1)


def bp_example_backward(residuals: Arrays, dC: Array) -> Arrays:
    """BP1 to BP4 for one example, as in Nielsen's second chapter."""
    a, w2, a1, a2, y, w1 = residuals
    da2 = dC * (a2 - y)
    delta2 = rules.bp1_example(da2, a2 * (1 - a2))
    delta1 = rules.bp2_example(w2, delta2, a1 * (1 - a1))
    da = rules.bp2_example(w1, delta1, jnp.ones_like(a))
    dw1, dw2 = rules.bp4_example(a, delta1), rules.bp4_example(a1, delta2)
    return da, dw1, rules.bp3_example(delta1), dw2, rules.bp3_example(delta2), -da2


BATCH = normal((5, 4), (4, 3), (3,), (3, 2), (2,), (5, 2))
EXAMPLE = normal((4, 1), (3, 4), (3, 1), (2, 3), (2, 1), (2, 1))

CASES = [
    Case(rules.Rule(bp_batch_forward, bp_batch_backward), "rows", BATCH, two_layers),
    Case(rules.Rule(bp_example_forward, bp_example_backward), "column", EXAMPLE, column),
]
