"""Cumulative operations as layers, without parameters."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["cumulative_logsumexp", "cumulative_max", "cumulative_product", "cumulative_sum"]


def cumulative_sum(*, axis: int = -1, reverse: bool = False) -> Layer:
    """y_t = x_1 + … + x_t along an axis; `reverse`: from the last."""
    return from_rule(rules.cumulative_sum, axis=axis, reverse=reverse)


def cumulative_product(*, axis: int = -1, reverse: bool = False) -> Layer:
    """y_t = x_1 ⋯ x_t along an axis; `reverse`: from the last."""
    return from_rule(rules.cumulative_product, axis=axis, reverse=reverse)


def cumulative_max(*, axis: int = -1, reverse: bool = False) -> Layer:
    """y_t = max(x_1, …, x_t) along an axis; `reverse`: from the last."""
    return from_rule(rules.cumulative_max, axis=axis, reverse=reverse)


def cumulative_logsumexp(*, axis: int = -1, reverse: bool = False) -> Layer:
    """y_t = log(e^x_1 + … + e^x_t) along an axis; `reverse`: from the last."""
    return from_rule(rules.cumulative_logsumexp, axis=axis, reverse=reverse)
