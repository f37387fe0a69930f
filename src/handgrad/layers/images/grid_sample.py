"""grid_sample as a layer of a pair: images, and the places to read."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer, from_pair_rule

__all__ = ["grid_sample"]


def grid_sample(
    *,
    method: Literal["linear", "nearest"] = "linear",
    padding: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = False,
) -> Layer:
    """(X, grid) -> X read at grid's places, as grid_sample_forward; dx is the pair (dX, dgrid)."""
    rule = rules.grid_sample.with_options(method=method, padding=padding, align_corners=align_corners)
    return from_pair_rule(rule, "(X, grid)")
