"""Sums as they arise: a backward pass that is told that only gradients are wanted, and no factors.

A layer that loops over others would stack the sides of their factors, one for each turn, to be multiplied later. Told by
`sums_only` that nobody asks for factors, it multiplies them out inside the loop, and returns arrays in their places.

It is the residuals that say so, in a field that is a part of their pytree's structure: they pass through any layer
unchanged, so that no composition has to know of it, and jax.jit compiles a function of residuals once for each way.
"""

from dataclasses import dataclass, field, replace

import jax
from jaxtyping import PyTree

from handgrad.factors import materialize

__all__ = []


@dataclass(frozen=True, kw_only=True)
class LoopResiduals:
    """What a layer keeps that runs other layers' backward passes in a loop, or forward passes once more.

    Attributes:
      sums: True where only sums are wanted.
    """

    sums: bool = field(default=False, metadata={"static": True})

    def as_wanted(self, dparams: PyTree) -> PyTree:
        """A layer's dparams as the loop hands them back: multiplied out where only sums are wanted."""
        return materialize(dparams) if self.sums else dparams


def sums_only(residuals: PyTree) -> PyTree:
    """The same residuals, for a backward pass in whose dparams sums may stand in the place of factors."""
    told = jax.tree.map(
        lambda node: sums_only(node) if isinstance(node, LoopResiduals) else node,
        residuals,
        is_leaf=lambda node: isinstance(node, LoopResiduals) and node is not residuals,
    )
    return replace(told, sums=True) if isinstance(told, LoopResiduals) else told
