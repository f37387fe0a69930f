"""Sums as they arise: a backward pass that is told that only gradients are wanted.

A layer that loops over others stacks the sides of their factors, to be multiplied later. Where nobody asks for factors,
as in `value_and_grad`, that would cost their memory for nothing: the loop then multiplies them out itself, as jax.grad
does, and returns arrays in their places.

An update that takes either (`training.two_phase_step`) wants sums of those factors alone that would take more memory,
or twice the time.

The residuals carry this wish, as a static field: it is a part of their pytree structure. So they bring it through any
layer, and no composition has to know of it; and a backward pass that a layer compiles by itself is compiled for each.
"""

import math
from dataclasses import dataclass, field, replace

import jax
from jaxtyping import PyTree

from handgrad.factors.trees import materialize_within

__all__ = []


@dataclass(frozen=True, kw_only=True)
class LoopResiduals:
    """The residuals of a layer that runs others in a loop, or their forward passes once more.

    Attributes:
      sums: dparams may be arrays, in the place of factors whose sum is at most so many times as large as they are.
    """

    sums: float = field(default=0.0, metadata={"static": True})

    @property
    def in_place(self) -> bool:
        """Whether the backward pass may write over what a layer kept, once that layer has been through: that of an
        update. Others may be differentiated once more, and reverse-mode autodiff would copy the stack for each write.
        """
        return 0 < self.sums < math.inf

    def as_wanted(self, dparams: PyTree) -> PyTree:
        """The dparams of a layer inside the loop, multiplied out where sums are wanted."""
        return materialize_within(dparams, self.sums) if self.sums else dparams

    def told(self, residuals: PyTree) -> PyTree:
        """The residuals of a forward pass that ran once more, with the same wish."""
        return with_sums(residuals, self.sums) if self.sums else residuals


def sums_only(residuals: PyTree) -> PyTree:
    """The same residuals, for a backward pass whose dparams may be sums in the place of factors."""
    return with_sums(residuals, math.inf)


def with_sums(residuals: PyTree, sums: float) -> PyTree:
    """The same residuals, for a backward pass whose dparams may be sums in the place of factors: of those whose sum is
    at most `sums` times as large as they are."""
    told = jax.tree.map(
        lambda node: with_sums(node, sums) if isinstance(node, LoopResiduals) else node,
        residuals,
        is_leaf=lambda node: isinstance(node, LoopResiduals) and node is not residuals,
    )
    return replace(told, sums=sums) if isinstance(told, LoopResiduals) else told
