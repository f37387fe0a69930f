"""Layers whose weight is a function of what is learned: weight norm and spectral norm, around any layer with a weight.

The function's transpose is linear in dW, so that example b's gradient is the transpose of its own dW_b. The layer
inside leaves dW as a factor; here it becomes a Recomputed one, whose sum is the transpose of ONE product, and whose
weighted sums and rows are recomputed from the factor inside.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, PyTree

from handgrad.checks import InputError, describe
from handgrad.factors import Factor, Recomputed, is_factor

WEIGHTS = ("W", "K")


class Reparameterized(NamedTuple):
    """What a reparameterized layer keeps.

    Attributes:
      of_weight: what the transpose of the weight's function needs.
      inside: the residuals of the layer inside.
    """

    of_weight: PyTree
    inside: PyTree


def weight_of(where: str, params: PyTree) -> tuple[str, Array]:
    """The name and the value of the weight among a layer's params: W of a linear, K of a convolution."""
    found = [name for name in WEIGHTS if name in getattr(params, "_fields", ())]
    if len(found) != 1:
        raise InputError(f"{where}: expected params with a weight, W or K, as linear's, got {describe(params)}")
    return found[0], getattr(params, found[0])


def pulled_back(
    dW: Factor | Array,
    shared: tuple[Array, ...],
    transpose: Callable[..., tuple[Array, ...]],
    again: tuple[Callable[..., Array], ...],
    of: tuple[Array, ...],
) -> tuple[Any, ...]:
    """The gradients of what a weight is a function of: a factor for each where dW is one, else arrays.

    Args:
      dW: the weight's gradient.
      shared: the arrays that all examples have in common.
      transpose: (*shared, dW) -> the gradients, linear in dW, in float32 at least.
      again: for each gradient Recomputed's `recompute`, with dW's factor as its rows.
      of: the parameters, for their dtypes.
    """
    if not is_factor(dW):
        return tuple(d.astype(p.dtype) for d, p in zip(transpose(*shared, dW), of, strict=True))
    totals = transpose(*shared, dW.accumulate())
    return tuple(
        Recomputed(total, dW, shared, recompute, None, p.dtype)
        for total, recompute, p in zip(totals, again, of, strict=True)
    )
