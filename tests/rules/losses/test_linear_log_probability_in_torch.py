"""PyTorch's linear, log_softmax and gather: values and all gradients, in float64."""

import numpy as np
from rules.losses.in_torch import RNG, SHAPE, F, N, Z, assert_torchs, torch

LABELS = np.where([[True, False, False]], -100, RNG.integers(0, 7, SHAPE[:2]))
W, B = RNG.standard_normal((N, 7)), RNG.standard_normal(7)


def log_probability(x, weight, b, y, softcap=None):
    z = F.linear(x, weight.T, b)
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    chosen = F.log_softmax(z, -1).gather(-1, y.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(y == -100, 0, chosen)


def test_log_probabilities():
    op, of = "linear_log_probability", {"chunk": 5, "ignore_index": -100}
    assert_torchs(
        (op, log_probability, Z, W, B, LABELS, of),
        (op, lambda *a: log_probability(*a, softcap=2.0), Z, W, None, LABELS, {**of, "softcap": 2.0}),
    )
