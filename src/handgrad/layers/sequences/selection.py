"""Sort, top-k, gather and scatter-add as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_pair_rule, from_rule

__all__ = ["gather", "scatter_add", "sort", "top_k"]


def sort(*, axis: int = -1, descending: bool = False) -> Layer:
    """Y = X sorted along an axis; `descending`: the largest first."""
    return from_rule(rules.sort, axis=axis, descending=descending)


def top_k(k: int) -> Layer:
    """Y = the k largest of each row, the largest first."""
    return from_rule(rules.top_k, k=k)


def gather(*, axis: int = -1) -> Layer:
    """y_i = x_(index i) along an axis, of a pair (X, indices)."""
    return from_pair_rule(rules.gather.with_options(axis=axis), "(X, indices)")


def scatter_add(*, axis: int = -1) -> Layer:
    """Y = X and each u_i added to x_(index i) along an axis, of a tuple (X, indices, U)."""
    return from_pair_rule(rules.scatter_add.with_options(axis=axis), "(X, indices, U)")
