"""PyTorch's self-gated activations on the same numbers, and at ±1e4, where all values and gradients are finite."""

import pytest
from in_torch import LARGE, assert_rules_agree, normal

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party


def test_self_gated():
    activations = {
        "silu": (rules.silu, F.silu),
        "mish": (rules.mish, F.mish),
        "gelu": (rules.gelu, F.gelu),
        "gelu-tanh": (rules.gelu.with_options(approximate=True), lambda x: F.gelu(x, approximate="tanh")),
    }
    rows = {name: (*row, (2 * normal(5, 2, 4),)) for name, row in activations.items()}
    assert_rules_agree(rows | {f"{name}, large": (*row, (LARGE,)) for name, row in activations.items()})
