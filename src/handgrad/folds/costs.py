"""How each parameter's per-example norms are computed, and what the other method would cost."""

import io
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
from jaxtyping import PyTree

from handgrad.checks import path_name
from handgrad.factors import Factor, Shared, Stacked, is_factor
from handgrad.factors.costs import Cost, cheapest
from handgrad.folds.per_example import check_apart

if TYPE_CHECKING:
    from rich.table import Table


class Row(NamedTuple):
    """One parameter.

    Attributes:
      path: its place in the model.
      factor: the kind, as "Outer" or "Stacked(Outer)".
      shape: the parameter's.
      sides: shapes of the arrays that the factor holds.
      method: the one that `sq_norms` takes.
      costs: FLOPs and bytes of every method that the factor knows, for one example; without those that recompute a
        Recomputed gradient.
      tokens: rows of one example; None where a factor knows one method.
      crossover: the number of tokens at which gram and direct cost the same: gram's FLOPs grow with its square,
        direct's with the number itself.
    """

    path: str
    factor: str
    shape: tuple[int, ...]
    sides: tuple[tuple[int, ...], ...]
    method: str
    costs: dict[str, Cost]
    tokens: int | None
    crossover: float | None


class Costs(tuple[Row, ...]):
    """One Row for each parameter; printed, a table."""

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=200, file=io.StringIO(), record=True)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines()).strip("\n")

    def __rich__(self) -> "Table":
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD)
        for title in ("parameter", "factor", "shape"):
            table.add_column(title, no_wrap=True)
        table.add_column("tokens", justify="right")
        table.add_column("method")
        for title in ("FLOPs", "bytes", "FLOPs of the other", "bytes", "equal at, tokens"):
            table.add_column(title, justify="right")
        for row in self:
            costs = [row.costs[row.method], *(cost for name, cost in row.costs.items() if name != row.method)]
            numbers = [f"{number:,}" for cost in costs for number in cost] + ["", ""] * (2 - len(costs))
            crossover = "" if row.crossover is None else f"{row.crossover:,.1f}"
            tokens = "" if row.tokens is None else f"{row.tokens:,}"
            table.add_row(row.path, row.factor, str(row.shape), tokens, row.method, *numbers, crossover)
        return table

    __repr__ = __str__


def costs(factors: PyTree[Factor]) -> Costs:
    """A table of the parameters: factor, shapes, the method that `sq_norms` takes, and what each method costs.

    Args:
      factors: of `value_and_factors`, or their shapes: `jax.eval_shape(value_and_factors(model, loss), ...)[1]` costs
        nothing.
    Raises:
      InputError: as `sq_norms`.
    Source: docs/factors.md
    """
    check_apart("costs", factors)
    return Costs(
        _row(path_name(path), factor) for path, factor in jax.tree.leaves_with_path(factors, is_leaf=is_factor)
    )


def _row(path: str, factor: Factor) -> Row:
    methods = factor.norm_methods()
    sides = tuple(tuple(leaf.shape) for leaf in jax.tree.leaves(factor))
    if len(methods) == 1:
        return Row(path, _kind(factor), factor.shape, sides, cheapest(methods), methods, None, None)
    tokens = _tokens(factor)
    crossover = tokens * methods["direct"].flops / methods["gram"].flops
    return Row(path, _kind(factor), factor.shape, sides, cheapest(methods), methods, tokens, crossover)


def _kind(factor: Factor) -> str:
    """The factor's class, and the classes of its parts."""
    inside = factor.sites if isinstance(factor, Shared) else (factor.factor,) if isinstance(factor, Stacked) else ()
    parts = ", ".join(_kind(part) for part in inside)
    return f"{type(factor).__name__}({parts})" if parts else type(factor).__name__


def _tokens(factor: Factor) -> int:
    """Rows of one example."""
    if isinstance(factor, Shared):
        return sum(_tokens(site) for site in factor.sites)
    if isinstance(factor, Stacked):
        return _tokens(factor.one_layer())
    *_, Delta = jax.tree.leaves(factor)
    return math.prod(Delta.shape[1:-1])
