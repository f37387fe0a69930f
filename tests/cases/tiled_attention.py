"""Rows of rules/tiled_attention.py: plain attention's, in tiles."""

from cases.attention import EVERYTHING, OPTIONS, attention, shapes, with_bias, with_everything, with_mask
from cases.case import Case, normal
from handgrad import layers

CASES = [
    Case("tiled_attention", "cross", normal(*shapes(2, 3, 5, 2, 2, 4, 3)), attention, {"tile": 2}),
    Case(
        "tiled_attention",
        "options",
        with_bias((1, 4, 1, 6), 2, 6, 6, 4, 2, 2, 3),
        attention,
        {**OPTIONS, "tile": 3},
    ),
    Case(
        "tiled_attention",
        "everything",
        with_everything((2, 1, 5, 5), (1, 4, 5, 5), 2, 5, 5, 4, 2, 3, 2),
        attention,
        {**EVERYTHING, "tile": 2},
        reduced=(),
    ),
    Case("tiled_attention", "one-tile", with_mask((2, 1, 1, 3), 2, 1, 3, 1, 1, 1, 1), attention),
    Case("tiled_attention", "empty", normal(*shapes(0, 2, 3, 2, 1, 2, 2)), attention, {"tile": 2}),
]


LAYERS = {"tiled_attention": lambda: layers.multi_head_attention(2, tile=2)}
