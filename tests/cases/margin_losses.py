"""Rows of rules/margin_losses.py."""

import jax
import jax.numpy as jnp

from cases.case import Case, fixed, integers, per_example, probabilities, with_target
from handgrad import layers


def hinge_loss(A, Y):
    return per_example(jnp.maximum(0, 1 - A * Y))


def focal_loss(Z, Y, gamma=2.0, alpha=None):
    """log of the doubt, its exponential to the power γ; log_sigmoid for both sides of the cross-entropy."""
    yes, no = jax.nn.log_sigmoid(Z), jax.nn.log_sigmoid(-Z)
    C = -(Y * yes + (1 - Y) * no)
    doubt = Y * jnp.exp(no) + (1 - Y) * jnp.exp(yes)
    balance = 1 if alpha is None else alpha * Y + (1 - alpha) * (1 - Y)
    return per_example(balance * C * jnp.exp(gamma * jnp.log(doubt)))


def signs(rng, shape):
    """−1 and 1, integers."""
    return 2 * integers(rng, shape) - 1


def signs_of_numbers(rng, shape):
    return signs(rng, shape).astype(float)


CASES = [
    Case("hinge_loss", "rows", with_target((5, 7), signs_of_numbers, 2.0), hinge_loss),
    Case("hinge_loss", "tokens-integers", with_target((3, 2, 4), signs), hinge_loss),
    Case(
        "hinge_loss",
        "ties",
        fixed([[1.0, -1.0, 0.5], [1.0, 2.0, -3.0]], [[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]),
        hinge_loss,
    ),
    Case("focal_loss", "rows", with_target((5, 7), probabilities, 2.0), focal_loss),
    Case("focal_loss", "tokens-integers", with_target((3, 2, 4), integers), focal_loss, {"gamma": 0.5, "alpha": 0.25}),
    Case("focal_loss", "sure", fixed([[30.0, -30.0, 5.0, -5.0]], [[1.0, 0.0, 0.0, 0.3]]), focal_loss, {"alpha": 0.7}),
]


LAYERS = {"hinge_loss": layers.hinge_loss, "focal_loss": layers.focal_loss}
