"""PyTorch's rectifiers on the same numbers, and at ±1e4, where all values and gradients are finite."""

import pytest
from in_torch import LARGE, assert_rules_agree, normal

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party


def test_rectifiers():
    activations = {
        "relu": (rules.relu, F.relu),
        "leaky_relu": (rules.leaky_relu, F.leaky_relu),
        "leaky_relu-0.3": (rules.leaky_relu.with_options(negative_slope=0.3), lambda x: F.leaky_relu(x, 0.3)),
        "elu": (rules.elu, F.elu),
        "elu-0.4": (rules.elu.with_options(alpha=0.4), lambda x: F.elu(x, 0.4)),
        "selu": (rules.selu, F.selu),
    }
    rows = {name: (*row, (2 * normal(5, 2, 4),)) for name, row in activations.items()}
    assert_rules_agree(rows | {f"{name}, large": (*row, (LARGE,)) for name, row in activations.items()})
