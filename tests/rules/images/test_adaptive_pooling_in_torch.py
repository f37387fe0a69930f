"""PyTorch's adaptive pools: the same cells, values and gradients, ties too."""

import numpy as np
from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules

MEANS = F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d
MAXIMA = F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d
SIZES = (((7,), (3,)), ((5, 6), (3, 4)), ((3, 4, 5), (2, 4, 7)))


def test_adaptive_pools():
    rows = {}
    for space, size in SIZES:
        X, axes = normal(2, *space, 3), len(space)
        mean = channels_first(lambda x, axes=axes, size=size: MEANS[axes - 1](x, size))
        largest = channels_first(lambda x, axes=axes, size=size: MAXIMA[axes - 1](x, size))
        rows[f"mean, {axes}"] = rules.adaptive_average_pool.with_options(size=size), mean, (X,)
        rule = rules.adaptive_max_pool.with_options(size=size)
        rows[f"maximum, {axes}"] = rule, largest, (X,)
        rows[f"maximum, {axes}, ties"] = rule, largest, (np.round(X),)
    assert_rules_agree(rows)
