"""PyTorch's sort, topk, gather and scatter_add: values and gradients, in float64."""

import numpy as np
from in_torch import assert_rules_agree, normal, torch

from handgrad import rules

RNG = np.random.default_rng(0)
X, U = normal(3, 4, 5), normal(3, 7, 5)
INDICES = RNG.integers(0, 4, (3, 7, 5))


def test_values_and_gradients():
    """Indices that repeat, along the middle axis and the last; of the sort both directions."""
    assert_rules_agree(
        {
            "sort": (rules.sort, lambda x: torch.sort(x).values, (X,)),
            "sort, middle": (
                rules.sort.with_options(axis=1, descending=True),
                lambda x: torch.sort(x, 1, descending=True).values,
                (X,),
            ),
            "top_k": (rules.top_k.with_options(k=2), lambda x: torch.topk(x, 2).values, (X,)),
            "gather": (rules.gather.with_options(axis=1), lambda x, i: torch.gather(x, 1, i), (X, INDICES)),
            "gather, last": (rules.gather, lambda x, i: torch.gather(x, -1, i), (X[:, 0], INDICES[:, :, 0])),
            "scatter_add": (
                rules.scatter_add.with_options(axis=1),
                lambda x, i, u: x.scatter_add(1, i, u),
                (X, INDICES, U),
            ),
        }
    )
