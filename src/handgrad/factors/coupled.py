"""Coupled: a gradient to which the examples of a batch contribute together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jax

from handgrad.checks import InputError
from handgrad.factors.base import Array, Cost, Factor, is_factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Coupled(Factor):
    """Σ_b g_b, of which the unweighted sum alone has a meaning: the parameter lies in or before a coupling of examples.

    What stands in row b of the factor is a part of the sum, but no gradient of example b alone: others enter it.

    Attributes:
      factor: the factor as the backward pass left it.
      by: what the layer or the loss says of its coupling, its place in front.
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
    def dtype(self) -> Any:
        return self.factor.dtype

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b g_b; another weight for each example has no meaning."""
        return self._refuse() if weights is not None else self.factor.accumulate()

    def per_example(self) -> NoReturn:
        self._refuse()

    def norm_methods(self) -> dict[str, Cost]:
        self._refuse()

    def by_token(self) -> NoReturn:
        self._refuse()

    def pick(self, rows: Callable[[Array], Array]) -> NoReturn:
        self._refuse()

    def counting(self, seen: Array) -> "Coupled":
        return Coupled(self.factor.counting(seen), self.by)

    def project(self, P: Array) -> "Coupled":
        return Coupled(self.factor.project(P), self.by)

    def _inner(self, other: Factor) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.by}: of a parameter in or before it, the unweighted sum alone is a gradient")


def coupled(dparams: Any, by: str | None) -> Any:
    """dparams with every factor Coupled by `by`; as they are where it is None."""
    if by is None:
        return dparams

    def of_one(d: Any) -> Any:
        return Coupled(d.factor if isinstance(d, Coupled) else d, by) if is_factor(d) else d

    return jax.tree.map(of_one, dparams, is_leaf=is_factor)


def coupling_in(dparams: Any) -> str | None:
    """What couples a factor in dparams, at any depth; None where nothing does."""
    nodes = jax.tree.leaves(dparams, is_leaf=_is_coupled)
    return next((node.by for node in nodes if _is_coupled(node)), None)


def renamed(dparams: Any, name: Callable[[str], str]) -> Any:
    """dparams with `name` applied to what the Coupled factors in it say."""

    def of_one(node: Any) -> Any:
        return Coupled(node.factor, name(node.by)) if isinstance(node, Coupled) else node

    return dparams if coupling_in(dparams) is None else jax.tree.map(of_one, dparams, is_leaf=_is_coupled)


def _is_coupled(node: Any) -> bool:
    return isinstance(node, Coupled)
