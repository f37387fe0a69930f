"""pad as a layer: the rule of the same name."""

from handgrad import rules
from handgrad.layers.layer import Layer, from_rule
from handgrad.rules.images.padding import Margins, Mode

__all__ = ["pad"]


def pad(padding: Margins, *, mode: Mode = "constant", value: float = 0.0) -> Layer:
    """Margins around space: of a constant, the last element, a mirror's image or the other end, as pad_forward's."""
    return from_rule(rules.pad, padding=padding, mode=mode, value=value)
