"""segment_reduce as a layer, without parameters."""

from typing import Literal

from handgrad import rules
from handgrad.layers.layer import Layer, from_pair_rule

__all__ = ["segment_reduce"]


def segment_reduce(segments: int, *, reduction: Literal["sum", "mean", "max"] = "sum") -> Layer:
    """y_s = the sum, mean or maximum of the rows whose id is s, of a pair (X, ids)."""
    return from_pair_rule(rules.segment_reduce.with_options(segments=segments, reduction=reduction), "(X, ids)")
