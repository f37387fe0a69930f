"""Sums as they arise: a backward pass that is told that only gradients are wanted.

A layer that loops over others stacks the sides of their factors, to be multiplied later. Where nobody asks for factors,
as in `value_and_grad`, that would cost their memory for nothing: the loop then multiplies them out itself, as jax.grad
does, and returns arrays in their places.

The residuals carry this wish, as a static field: it is a part of their pytree structure. So they bring it through any
layer, and no composition has to know of it; and a backward pass that a layer compiles by itself is compiled for both.
"""

from dataclasses import dataclass, field, replace

import jax
from jaxtyping import PyTree

from handgrad.factors import materialize

__all__ = []


@dataclass(frozen=True, kw_only=True)
class LoopResiduals:
    """The residuals of a layer that runs others in a loop, or their forward passes once more.

    Attributes:
      sums: whether only gradients are wanted, so that dparams may be arrays.
    """

    sums: bool = field(default=False, metadata={"static": True})

    def as_wanted(self, dparams: PyTree) -> PyTree:
        """The dparams of a layer inside the loop, multiplied out where only sums are wanted."""
        return materialize(dparams) if self.sums else dparams

    def told(self, residuals: PyTree) -> PyTree:
        """The residuals of a forward pass that ran once more, with the same wish."""
        return sums_only(residuals) if self.sums else residuals


def sums_only(residuals: PyTree) -> PyTree:
    """The same residuals, for a backward pass whose dparams may be sums in the place of factors."""
    told = jax.tree.map(
        lambda node: sums_only(node) if isinstance(node, LoopResiduals) else node,
        residuals,
        is_leaf=lambda node: isinstance(node, LoopResiduals) and node is not residuals,
    )
    return replace(told, sums=True) if isinstance(told, LoopResiduals) else told
