"""PyTorch's grid_sample: values and gradients of images and places, option by option."""

import itertools

import numpy as np
from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules

METHODS = {"linear": "bilinear", "nearest": "nearest"}


def test_grid_sample():
    rows = {}
    for ours, padding, corners in itertools.product(METHODS, ("zeros", "border", "reflection"), (False, True)):
        options = {"mode": METHODS[ours], "padding_mode": padding, "align_corners": corners}
        sample = channels_first(lambda x, grid, options=options: F.grid_sample(x, grid, **options))
        rule = rules.grid_sample.with_options(method=ours, padding=padding, align_corners=corners)
        rows[f"{ours}, {padding}, {corners}"] = rule, sample, (normal(2, 4, 5, 3), 0.7 * normal(2, 3, 4, 2))
    sample = channels_first(lambda x, grid: F.grid_sample(x, grid, align_corners=False))
    rows["solid"] = rules.grid_sample, sample, (normal(2, 3, 4, 2, 2), 0.7 * normal(2, 3, 2, 2, 3))
    far = {"padding_mode": "reflection", "align_corners": False}  # some reflected several times
    sample = channels_first(lambda x, grid: F.grid_sample(x, grid, **far))
    rows["far"] = (
        rules.grid_sample.with_options(padding="reflection"),
        sample,
        (normal(2, 4, 3, 1), 4 * normal(2, 3, 3, 2)),
    )
    ends = np.array([[-1.0, 1], [1, 0.5], [0.25, -1]]).reshape(1, 3, 1, 2)  # at the border
    border = {"padding_mode": "border", "align_corners": True}
    sample = channels_first(lambda x, grid: F.grid_sample(x, grid, **border))
    rule = rules.grid_sample.with_options(padding="border", align_corners=True)
    rows["ends"] = rule, sample, (normal(1, 4, 6, 2), ends)
    assert_rules_agree(rows)
