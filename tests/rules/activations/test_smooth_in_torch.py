"""PyTorch's smooth activations on the same numbers, and at ±1e4, where all values and gradients are finite."""

from in_torch import F, assert_activations_agree, torch

from handgrad import rules


def test_smooth():
    assert_activations_agree(
        (rules.identity, lambda x: x * 1),
        (rules.sigmoid, torch.sigmoid),
        (rules.tanh, torch.tanh),
        # By default torch's softplus is x itself beyond 20, an error of 2e-9.
        (rules.softplus, lambda x: F.softplus(x, threshold=500)),
    )
