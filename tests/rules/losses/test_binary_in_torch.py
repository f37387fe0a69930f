"""PyTorch's losses for binary classification: values and all gradients, in float64."""

import itertools

import numpy as np
from rules.losses.in_torch import BITS, LARGE, PROBABILITIES, F, Z, assert_torchs, elementwise, summed, torch


def focal(gamma, alpha):
    """torchvision's formula, by torch's autograd."""

    def loss(z, y):
        p = torch.sigmoid(z)
        C = F.binary_cross_entropy_with_logits(z, y.to(z.dtype), reduction="none")
        C = C * (1 - (p * y + (1 - p) * (1 - y))) ** gamma
        return summed(C if alpha is None else (alpha * y + (1 - alpha) * (1 - y)) * C)

    return loss


def test_cross_entropies():
    with_logits, of_probabilities = map(elementwise, (F.binary_cross_entropy_with_logits, F.binary_cross_entropy))
    A = 1 / (1 + np.exp(-Z))
    assert_torchs(
        ("sigmoid_cross_entropy", with_logits, Z, PROBABILITIES),
        ("binary_cross_entropy", of_probabilities, A, PROBABILITIES),
        ("binary_cross_entropy", of_probabilities, A, BITS.astype(float)),
    )
    assert_torchs(("sigmoid_cross_entropy", with_logits, LARGE, PROBABILITIES[:3, 0, :4]))


def test_focal_loss():
    settings = itertools.product((0.0, 0.5, 2.0), (None, 0.25), (PROBABILITIES, BITS))
    rows = [(focal(gamma, alpha), Z, target, {"gamma": gamma, "alpha": alpha}) for gamma, alpha, target in settings]
    assert_torchs(*(("focal_loss", *row) for row in rows))
