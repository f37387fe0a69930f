"""PyTorch's softmax family on the same numbers, and at ±1e4, where all values and gradients are finite."""

from in_torch import assert_activations_agree, torch

from handgrad import rules


def test_the_softmax_family():
    assert_activations_agree(
        (rules.softmax, lambda x: torch.softmax(x, -1)),
        (rules.log_softmax, lambda x: torch.log_softmax(x, -1)),
        (rules.logsumexp, lambda x: torch.logsumexp(x, -1)),
    )
