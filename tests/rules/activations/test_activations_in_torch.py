"""PyTorch's activations on the same numbers, and at ±1e4: every value and every gradient is finite, and torch's."""

import numpy as np
import pytest
from in_torch import F, assert_rules_agree, torch

from handgrad import rules

pytestmark = pytest.mark.third_party

X = np.random.default_rng(0).standard_normal((5, 2, 4)) * 2
LARGE = np.array([[1e4, -1e4, 0.25, 9999.0], [-1e4, -1e4, -9999.5, -1e4], [1e4, 1e4, 1e4, 1e4]])
ACTIVATIONS = {
    "smooth": {
        "identity": (rules.identity, lambda x: x * 1),
        "sigmoid": (rules.sigmoid, torch.sigmoid),
        "tanh": (rules.tanh, torch.tanh),
        # By default torch's softplus is x itself beyond 20, an error of 2e-9.
        "softplus": (rules.softplus, lambda x: F.softplus(x, threshold=500)),
    },
    "rectifiers": {
        "relu": (rules.relu, F.relu),
        "leaky_relu": (rules.leaky_relu, F.leaky_relu),
        "leaky_relu-0.3": (rules.leaky_relu.with_options(negative_slope=0.3), lambda x: F.leaky_relu(x, 0.3)),
        "elu": (rules.elu, F.elu),
        "elu-0.4": (rules.elu.with_options(alpha=0.4), lambda x: F.elu(x, 0.4)),
        "selu": (rules.selu, F.selu),
    },
    "self_gated": {
        "silu": (rules.silu, F.silu),
        "mish": (rules.mish, F.mish),
        "gelu": (rules.gelu, F.gelu),
        "gelu-tanh": (rules.gelu.with_options(approximate=True), lambda x: F.gelu(x, approximate="tanh")),
    },
    "softmax": {
        "softmax": (rules.softmax, lambda x: torch.softmax(x, -1)),
        "log_softmax": (rules.log_softmax, lambda x: torch.log_softmax(x, -1)),
        "logsumexp": (rules.logsumexp, lambda x: torch.logsumexp(x, -1)),
    },
}


@pytest.mark.parametrize("stem", ACTIVATIONS)
def test_activations(stem):
    inputs = {"": X, "-large": LARGE}
    rows = {name + size: (*row, (x,)) for name, row in ACTIVATIONS[stem].items() for size, x in inputs.items()}
    assert_rules_agree(rows)
