"""Coupled: a gradient of a parameter in or before a layer in which examples interact."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, TypeGuard

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from handgrad.checks import InputError
from handgrad.factors.base import Factor, Gradient, Mask, Weights, is_factor
from handgrad.factors.costs import Cost


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Coupled(Factor):
    """Σ_b g_b, of which only the unweighted sum is meaningful: the parameter lies in or before a coupling of examples.

    Row b of the factor is a term of the sum, but not the gradient of example b's loss: other examples contribute to it.

    Attributes:
      factor: the factor that the backward pass returned.
      by: the description that the layer or loss gives of its coupling, prefixed by its place.
    """

    factor: Factor
    by: str = field(metadata={"static": True})

    @property
    def batch(self) -> int:
        return self.factor.batch

    @property
    def shape(self) -> tuple[int, ...]:
        return self.factor.shape

    @property
    def dtype(self) -> np.dtype:
        return self.factor.dtype

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b g_b; weights are refused."""
        return self._refuse() if weights is not None else self.factor.accumulate()

    def per_example(self) -> NoReturn:
        self._refuse()

    def norm_methods(self) -> dict[str, Cost]:
        self._refuse()

    def by_token(self) -> NoReturn:
        self._refuse()

    def pick(self, rows: Callable[[Array], Array]) -> NoReturn:
        self._refuse()

    def with_mask(self, mask: Mask) -> "Coupled":
        return Coupled(self.factor.with_mask(mask), self.by)

    def project(self, P: Float[Array, "n_in r"]) -> "Coupled":
        return Coupled(self.factor.project(P), self.by)

    def _inner(self, other: Factor) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.by}: of a parameter in or before it, only the unweighted sum is a gradient")


def coupled(dparams: PyTree[Factor | Array], by: str | None) -> PyTree[Factor | Array]:
    """dparams with every factor Coupled by `by`; as they are where it is None."""
    if by is None:
        return dparams

    def of_one(d: Factor | Array) -> Factor | Array:
        return Coupled(d.factor if isinstance(d, Coupled) else d, by) if is_factor(d) else d

    return jax.tree.map(of_one, dparams, is_leaf=is_factor)


def coupling_in(dparams: PyTree[Factor | Array]) -> str | None:
    """The `by` of the first Coupled factor in dparams, at any depth; None where there is none."""
    nodes = jax.tree.leaves(dparams, is_leaf=_is_coupled)
    return next((node.by for node in nodes if _is_coupled(node)), None)


def renamed(dparams: PyTree[Factor | Array], name: Callable[[str], str]) -> PyTree[Factor | Array]:
    """dparams with `name` applied to the `by` of every Coupled factor."""

    def of_one(node: Factor | Array) -> Factor | Array:
        return Coupled(node.factor, name(node.by)) if isinstance(node, Coupled) else node

    return dparams if coupling_in(dparams) is None else jax.tree.map(of_one, dparams, is_leaf=_is_coupled)


def _is_coupled(node: object) -> TypeGuard[Coupled]:
    return isinstance(node, Coupled)
