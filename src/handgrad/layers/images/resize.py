"""resize as a layer: the rule of the same name."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule
from handgrad.rules.images._windows import PerAxis
from handgrad.rules.images.resize import Method

__all__ = ["resize"]


def resize(size: PerAxis, *, method: Method = "linear", antialias: bool = True, align_corners: bool = False) -> Layer:
    """Y = R_h X R_wᵀ, of this size along each axis of space; the options are resize_forward's."""
    return from_rule(rules.resize, size=size, method=method, antialias=antialias, align_corners=align_corners)
