"""PyTorch's interpolate: values and gradients in float64, mode by mode, growing and shrinking."""

from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules

SPACE, SIZE = (5, 6), (8, 3)
LINEAR, CUBIC = {"mode": "bilinear"}, {"mode": "bicubic"}
ROWS = {
    "linear": ({"antialias": False}, LINEAR),
    "linear, corners": ({"antialias": False, "align_corners": True}, {**LINEAR, "align_corners": True}),
    "linear, antialias": ({}, {**LINEAR, "antialias": True}),
    "cubic": ({"method": "cubic-pytorch", "antialias": False}, CUBIC),
    "cubic, corners": (
        {"method": "cubic-pytorch", "antialias": False, "align_corners": True},
        {**CUBIC, "align_corners": True},
    ),
    "cubic, antialias": ({"method": "cubic-pytorch"}, {**CUBIC, "antialias": True}),
    "nearest": ({"method": "nearest-pytorch"}, {"mode": "nearest"}),
    "nearest-exact": ({"method": "nearest"}, {"mode": "nearest-exact"}),
}


def test_resize():
    rows = {}
    for name, (ours, theirs) in ROWS.items():
        interpolate = channels_first(lambda x, options=theirs: F.interpolate(x, SIZE, **options))
        rows[name] = rules.resize.with_options(size=SIZE, **ours), interpolate, (normal(2, *SPACE, 2),)
    line = channels_first(lambda x: F.interpolate(x, 7, mode="linear"))
    rows["line"] = rules.resize.with_options(size=7, antialias=False), line, (normal(2, 4, 3),)
    assert_rules_agree(rows)
