"""The linear operation: the place where every weight enters a network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import InputError, as_row, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Outer, Total
from handgrad.rules.rule import Rule

__all__ = [
    "LinearResiduals",
    "linear",
    "linear_backward",
    "linear_forward",
]

Array = jax.Array


class LinearResiduals(NamedTuple):
    """The operation's own arguments: references, no copies.

    Attributes:
      X: (batch, ..., n_in) input, the left side of dW.
      W: (n_in, n_out) weights, for dX.
      b: (n_out,) bias or None. No cotangent needs its values; it says whether there is a db, and in which dtype.
    """

    X: Array
    W: Array
    b: Array | None


def linear_forward(X: Array, W: Array, b: Array | None = None) -> tuple[Array, LinearResiduals]:
    """Y = X W + 1 bᵀ: every row of X times W, plus the bias.

    Args:
      X: (batch, ..., n_in) floating point; the axes between the first and the last are tokens or space.
      W: (n_in, n_out).
      b: (n_out,), or None for no bias.
    Returns:
      Y (batch, ..., n_out) in the promoted dtype of X, W and b; residuals.
    Raises:
      InputError: a wrong rank, width or dtype.
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


def linear_backward(residuals: LinearResiduals, dY: Array) -> tuple[Array, Outer, Total | None]:
    """Pull dY back through Y = X W + 1 bᵀ.

        dX = dY Wᵀ      dW = Xᵀ dY      db = dYᵀ 1

    Args:
      residuals: LinearResiduals of linear_forward.
      dY: (batch, ..., n_out) cotangent of Y.
    Returns:
      dX (batch, ..., n_in); dW: Outer, (n_in, n_out); db: Total, (n_out,), or None where there was no bias.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/linear/linear.md
    """
    X, W, b = check_residuals("linear_backward", residuals, LinearResiduals)
    dtype = jnp.result_type(X, W) if b is None else jnp.result_type(X, W, b)
    check_cotangent("linear_backward", dY, (*X.shape[:-1], W.shape[1]), dtype)
    dX = meshes.matmul(dY, W.T).astype(X.dtype)
    return dX, Outer(X, dY, W.dtype), None if b is None else Total(dY, b.dtype)


linear = Rule(linear_forward, linear_backward)
