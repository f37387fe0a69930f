"""flatten: from space to features."""

import math
from typing import NamedTuple

from jaxtyping import Array, Float

from handgrad.checks import check_array, check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined

__all__ = ["FlattenResiduals", "flatten", "flatten_backward", "flatten_forward"]


class FlattenResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte."""

    outline: Float[Array, "batch 0 ..."]


def flatten_forward(X: Float[Array, "batch ..."]) -> tuple[Float[Array, "batch n"], FlattenResiduals]:
    """Y = X, every example as one row of features, the last axis fastest.

    Derivation: docs/derivations/images/flatten.md
    """
    check_array("flatten_forward", "X", X, min_ndim=1)
    return X.reshape(X.shape[0], math.prod(X.shape[1:])), FlattenResiduals(outline(X))


def flatten_backward(residuals: FlattenResiduals, dY: Float[Array, "batch n"]) -> tuple[Float[Array, "batch ..."]]:
    """Pull dY back through Y = X: the same numbers in X's shape.

        dX = dY

    Derivation: docs/derivations/images/flatten.md
    """
    X = outlined(*check_residuals("flatten_backward", residuals, FlattenResiduals))
    check_cotangent("flatten_backward", dY, (X.shape[0], math.prod(X.shape[1:])), X.dtype)
    return (dY.reshape(X.shape),)


flatten = Rule(flatten_forward, flatten_backward)
