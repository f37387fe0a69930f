"""PyTorch's softmax family on the same numbers, and at ±1e4, where all values and gradients are finite."""

import pytest
from in_torch import LARGE, assert_rules_agree, normal

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")

pytestmark = pytest.mark.third_party


def test_the_softmax_family():
    activations = {
        "softmax": (rules.softmax, lambda x: torch.softmax(x, -1)),
        "log_softmax": (rules.log_softmax, lambda x: torch.log_softmax(x, -1)),
        "logsumexp": (rules.logsumexp, lambda x: torch.logsumexp(x, -1)),
    }
    rows = {name: (*row, (2 * normal(5, 2, 4),)) for name, row in activations.items()}
    assert_rules_agree(rows | {f"{name}, large": (*row, (LARGE,)) for name, row in activations.items()})
