"""PyTorch's CTC: values and gradients, in float64."""

import functools

import numpy as np
import pytest
from helpers import together
from in_torch import F, assert_close, in_torch, torch
from rules.losses.in_torch import assert_torchs

from handgrad import rules

RNG = np.random.default_rng(0)
BATCH, TIME, CLASSES = 6, 9, 5
Z = 2 * RNG.standard_normal((BATCH, TIME, CLASSES))
INPUT_LENGTHS, LABEL_LENGTHS = np.array([9, 8, 5, 9, 3, 9]), np.array([4, 3, 3, 0, 1, 4])


def by_torch(z, labels, frames, length, blank=0):
    """From logits: torch's own loss begins at log softmax."""
    log_p = F.log_softmax(z, -1).transpose(0, 1)
    return F.ctc_loss(log_p, labels, frames, length, blank=blank, reduction="none")


@pytest.mark.parametrize("blank", [0, 2, CLASSES - 1])
def test_values_and_gradients(blank):
    """Different lengths, no label at all, and labels that repeat; by both policies."""
    others = np.array([k for k in range(CLASSES) if k != blank])
    labels = others[RNG.integers(0, CLASSES - 1, (BATCH, 4))]
    labels[0], labels[2, :3] = others[[1, 1, 2, 2]], others[[0, 0, 0]]
    row = "ctc_loss", functools.partial(by_torch, blank=blank), Z, labels, INPUT_LENGTHS, LABEL_LENGTHS
    assert_torchs(*((*row, {"blank": blank, "residuals": kept}) for kept in ("save", "recompute")), bar=1e-10)


def test_a_long_sequence():
    """200 frames and 40 labels: a probability far below float64's smallest number."""
    logits, labels = 3 * RNG.standard_normal((1, 200, 6)), RNG.integers(1, 6, (1, 40))
    given = logits, labels, np.array([200]), np.array([40])
    assert by_torch(*map(torch.tensor, given)) > 200
    assert_torchs(("ctc_loss", by_torch, *given), bar=1e-10)


def test_no_alignment():
    """Infinite in both. Torch's gradient is NaN without zero_infinity; ours is 0."""
    arguments = Z[:2, :3], np.array([[1, 1, 2], [1, 2, 3]]), np.array([3, 3]), np.array([3, 3])
    dC, (expected, expected_dZ, *_) = in_torch(by_torch, *arguments)
    ((C, (dZ, *_)),) = together([(rules.ctc_loss, dC, arguments)])
    assert np.isinf([C[0], expected[0]]).all()
    assert not np.any(dZ[0])
    assert np.isnan(expected_dZ[0]).all()
    assert_close((C[1:], dZ[1]), (expected[1:], expected_dZ[1]), rtol=1e-10)
