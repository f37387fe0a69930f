"""PyTorch's padding: values and gradients in float64, mode by mode."""

from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules

MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


def test_padding():
    rows = {}
    for ours, theirs in MODES.items():
        for space, padding in (((5,), ((4, 2),)), ((4, 3), ((2, 3), (0, 2)))):
            flat = [margin for pair in reversed(padding) for margin in pair]  # PyTorch begins with the last axis
            rule = rules.pad.with_options(padding=padding, mode=ours)
            pad = channels_first(lambda x, flat=flat, mode=theirs: F.pad(x, flat, mode))
            rows[f"{ours}, {len(space)}"] = rule, pad, (normal(2, *space, 3),)
    rows["value"] = (
        rules.pad.with_options(padding=1, value=2.5),
        channels_first(lambda x: F.pad(x, (1, 1, 1, 1), value=2.5)),
        (normal(2, 3, 2, 2),),
    )
    assert_rules_agree(rows)
