"""PyTorch's smooth activations on the same numbers, and at ±1e4, where all values and gradients are finite."""

import pytest
from in_torch import LARGE, assert_rules_agree, normal

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party


def test_smooth():
    activations = {
        "identity": (rules.identity, lambda x: x * 1),
        "sigmoid": (rules.sigmoid, torch.sigmoid),
        "tanh": (rules.tanh, torch.tanh),
        # By default torch's softplus is x itself beyond 20, an error of 2e-9.
        "softplus": (rules.softplus, lambda x: F.softplus(x, threshold=500)),
    }
    rows = {name: (*row, (2 * normal(5, 2, 4),)) for name, row in activations.items()}
    assert_rules_agree(rows | {f"{name}, large": (*row, (LARGE,)) for name, row in activations.items()})
