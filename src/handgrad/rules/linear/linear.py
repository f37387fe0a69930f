"""The linear operation: the place where every weight enters a network."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Outer, Total
from handgrad.rule import Rule

__all__ = ["LinearResiduals", "linear", "linear_backward", "linear_forward"]

Inputs = Float[Array, "batch *rest n_in"]
Outputs = Float[Array, "batch *rest n_out"]
Weights = Float[Array, "n_in n_out"]
Bias = Float[Array, " n_out"]


class LinearResiduals(NamedTuple):
    """The operation's arguments: references, no copies.

    Attributes:
      X: input, the left side of dW.
      W: weights, for dX.
      b: bias, or None. No cotangent needs its values; it says whether there is a db, and in which dtype.
    """

    X: Inputs
    W: Weights
    b: Bias | None


def linear_forward(X: Inputs, W: Weights, b: Bias | None = None) -> tuple[Outputs, LinearResiduals]:
    """Y = X W + 1 bᵀ, in the promoted dtype of X, W and b.

    Every row of X is multiplied by W; the axes between the first and the last are tokens or space.

    >>> import jax.numpy as jnp
    >>> from handgrad import rules
    >>> rules.linear(jnp.ones((1, 2)), jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).tolist()
    [[5.0, 7.0, 9.0]]

    Derivation: docs/derivations/linear/linear.md
    """
    check_array("linear_forward", "X", X, min_ndim=2)
    check_array("linear_forward", "W", W)
    if W.ndim != 2:
        raise InputError(f"linear_forward: W must have shape (n_in, n_out), got {describe(W)}")
    check_shape("linear_forward", "X", X, (*X.shape[:-1], W.shape[0]), f"to meet W {W.shape}")
    Y = meshes.matmul(X, W)
    if b is not None:
        check_array("linear_forward", "b", b)
        check_shape("linear_forward", "b", b, (W.shape[1],), f"to meet W {W.shape}")
        Y = Y + as_row(b, Y.ndim)
    return Y, LinearResiduals(X, W, b)


def linear_backward(residuals: LinearResiduals, dY: Outputs) -> tuple[Inputs, Outer, Total | None]:
    """Pull dY back through Y = X W + 1 bᵀ.

        dX = dY Wᵀ      dW = Xᵀ dY      db = dYᵀ 1

    dW and db are factors, not yet multiplied; db is None where there was no bias.

    Derivation: docs/derivations/linear/linear.md
    """
    X, W, b = check_residuals("linear_backward", residuals, LinearResiduals)
    dtype = jnp.result_type(X, W) if b is None else jnp.result_type(X, W, b)
    check_cotangent("linear_backward", dY, (*X.shape[:-1], W.shape[1]), dtype)
    dX = meshes.inner(dY, W).astype(X.dtype)
    return dX, Outer(X, dY, W.dtype), None if b is None else Total(dY, b.dtype)


linear = Rule(linear_forward, linear_backward)
