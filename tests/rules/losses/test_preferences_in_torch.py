"""The formulas as TRL writes them, in PyTorch: values and all gradients, in float64."""

import numpy as np
from rules.losses.in_torch import F, assert_torchs

L, R = 3 * np.random.default_rng(0).standard_normal((2, 4, 2, 3))


def logits(policy, reference):
    chosen, rejected = policy.sum(-1).unbind(1)
    reference_chosen, reference_rejected = reference.sum(-1).unbind(1)
    return (chosen - rejected) - (reference_chosen - reference_rejected)


def dpo(policy, reference, beta=0.1, label_smoothing=0.0):
    x = logits(policy, reference)
    return -F.logsigmoid(beta * x) * (1 - label_smoothing) - F.logsigmoid(-beta * x) * label_smoothing


def ipo(policy, reference, beta=0.1):
    return (logits(policy, reference) - 1 / (2 * beta)) ** 2


def test_preferences():
    smooth = {"beta": 0.5, "label_smoothing": 0.2}
    assert_torchs(
        ("dpo_loss", dpo, L, R),
        ("dpo_loss", lambda *a: dpo(*a, **smooth), L, R, smooth),
        ("ipo_loss", ipo, L, R),
        ("ipo_loss", lambda *a: ipo(*a, beta=0.3), L, R, {"beta": 0.3}),
    )
