"""pixel_shuffle and pixel_unshuffle as layers: the rules of the same names."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule
from handgrad.rules.images._windows import PerAxis

__all__ = ["pixel_shuffle", "pixel_unshuffle"]


def pixel_shuffle(factor: PerAxis) -> Layer:
    """(batch, h, w, n r²) to (batch, h r, w r, n): a block of space from the features of one element."""
    return from_rule(rules.pixel_shuffle, factor=factor)


def pixel_unshuffle(factor: PerAxis) -> Layer:
    """(batch, h r, w r, n) to (batch, h, w, n r²): the inverse of pixel_shuffle."""
    return from_rule(rules.pixel_unshuffle, factor=factor)
