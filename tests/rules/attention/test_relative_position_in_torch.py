"""T5's relative position bias in PyTorch: its buckets by logarithms in float32, and an embedding of them."""

import math

import numpy as np
import pytest
from in_torch import F, assert_rules_agree, normal, torch

from handgrad import rules


def bucket(ahead, buckets, bidirectional, max_distance):
    """As T5 is published: exact ones, then evenly in the logarithm, rounded down."""
    first, away = torch.zeros_like(ahead), -ahead.clamp(max=0)
    if bidirectional:
        buckets //= 2
        first, away = buckets * (ahead > 0), ahead.abs()
    exact = buckets // 2
    wider = torch.log(away.float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    wider = (exact + wider.clamp(min=0).long()).clamp(max=buckets - 1)
    return first + torch.where(away < exact, away, wider)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets(bidirectional):
    ahead = np.arange(-2000, 2001)
    for buckets, max_distance in ((32, 128), (64, 128), (16, 64), (32, 256), (8, 20), (32, 1024), (10, 50)):
        options = {"bidirectional": bidirectional, "max_distance": max_distance}
        ours = rules.relative_position_buckets(ahead, buckets, **options)
        assert (ours == bucket(torch.tensor(ahead), buckets, **options).numpy()).all()


def test_the_bias():
    def biased(S, table, bidirectional=True):
        ahead = torch.arange(S.shape[3])[None] - torch.arange(S.shape[2])[:, None]
        return S + F.embedding(bucket(ahead, len(table), bidirectional, 128), table).permute(2, 0, 1)

    rule = rules.relative_position_bias
    given = normal(2, 3, 20, 30), normal(8, 3)
    causal = (rule.with_options(bidirectional=False), lambda S, table: biased(S, table, False), given)
    assert_rules_agree([(rule, biased, given), causal])
