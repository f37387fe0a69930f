"""PyTorch's cumsum, cumprod, cummax and logcumsumexp: values and gradients, in float64."""

import numpy as np
from in_torch import assert_rules_agree, normal, torch

from handgrad import rules

X = normal(3, 4, 5)
ZEROS = np.where(normal(3, 4, 5, seed=1) > 0.8, 0.0, X)  # rows with none, one and several


def flipped(function):
    """From the last to the first."""
    return lambda x: function(x.flip(1), 1).flip(1)


def test_values_and_gradients():
    """torch gives the cotangent of equal maxima to the newest; there are none here."""
    assert (ZEROS == 0).sum(1).max() > 1
    rows = {
        "sum": (rules.cumulative_sum, torch.cumsum),
        "product": (rules.cumulative_product, torch.cumprod),
        "max": (rules.cumulative_max, lambda x, dim: torch.cummax(x, dim).values),
        "logsumexp": (rules.cumulative_logsumexp, torch.logcumsumexp),
    }
    table = {}
    for name, (rule, theirs) in rows.items():
        given = ZEROS if name == "product" else X
        table[name] = rule, lambda x, theirs=theirs: theirs(x, -1), (given,)
        table[f"{name}, reversed"] = rule.with_options(axis=1, reverse=True), flipped(theirs), (given,)
    assert_rules_agree(table)
