"""flatten: from space to features."""

import math
from typing import NamedTuple

import jax

from handgrad.checks import check_array, check_cotangent, check_residuals
from handgrad.rules._outline import outline, outlined
from handgrad.rules.rule import Rule

__all__ = [
    "FlattenResiduals",
    "flatten",
    "flatten_backward",
    "flatten_forward",
]

Array = jax.Array


class FlattenResiduals(NamedTuple):
    """outline: (batch, 0, ...) X's shape and dtype, and no byte."""

    outline: Array


def flatten_forward(X: Array) -> tuple[Array, FlattenResiduals]:
    """Y = X, every example as one row of features, the last axis fastest.

    Args:
      X: (batch, ...) floating point.
    Returns:
      Y (batch, features) like X; residuals.
    Raises:
      InputError: X is not floating point, or has no batch.
    Derivation: docs/derivations/images/flatten.md
    """
    check_array("flatten_forward", "X", X, min_ndim=1)
    return X.reshape(X.shape[0], math.prod(X.shape[1:])), FlattenResiduals(outline(X))


def flatten_backward(residuals: FlattenResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = X: the same numbers in X's shape.

        dX = dY

    Args:
      residuals: FlattenResiduals of flatten_forward.
      dY: (batch, features) cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/images/flatten.md
    """
    X = outlined(*check_residuals("flatten_backward", residuals, FlattenResiduals))
    check_cotangent("flatten_backward", dY, (X.shape[0], math.prod(X.shape[1:])), X.dtype)
    return (dY.reshape(X.shape),)


flatten = Rule(flatten_forward, flatten_backward)
