"""PyTorch's rectifiers on the same numbers, and at ±1e4, where all values and gradients are finite."""

from in_torch import F, assert_activations_agree

from handgrad import rules


def test_rectifiers():
    assert_activations_agree(
        (rules.relu, F.relu),
        (rules.leaky_relu, F.leaky_relu),
        (rules.leaky_relu.with_options(negative_slope=0.3), lambda x: F.leaky_relu(x, 0.3)),
        (rules.elu, F.elu),
        (rules.elu.with_options(alpha=0.4), lambda x: F.elu(x, 0.4)),
        (rules.selu, F.selu),
    )
