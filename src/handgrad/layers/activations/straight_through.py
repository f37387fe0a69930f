"""Straight-through estimators as layers without parameters: the rule of the same name, with its option."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule

__all__ = ["straight_through_round", "straight_through_sign"]


def straight_through_round() -> Layer:
    """Y = X rounded to whole numbers; backward, dX = dY."""
    return from_rule(rules.straight_through_round)


def straight_through_sign(window: float = 1.0) -> Layer:
    """Y = 1 where x ≥ 0, else −1; backward, dX = dY where |x| ≤ window."""
    return from_rule(rules.straight_through_sign, window=window)
