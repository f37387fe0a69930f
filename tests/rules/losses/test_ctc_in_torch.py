"""PyTorch's CTC: values and gradients, in float64."""

import numpy as np
import pytest
from rules.losses.in_torch import F, relative_error, torch
from rules.losses.rows import outcomes

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
BATCH, TIME, CLASSES = 6, 9, 5
Z = 2 * RNG.standard_normal((BATCH, TIME, CLASSES))
INPUT_LENGTHS, LABEL_LENGTHS = np.array([9, 8, 5, 9, 3, 9]), np.array([4, 3, 3, 0, 1, 4])
DC = RNG.standard_normal(BATCH)


def by_torch(Z, labels, frames, length, dC, blank=0):
    """From logits: torch's own loss begins at log softmax."""
    leaf = torch.tensor(Z, requires_grad=True)
    log_p = F.log_softmax(leaf, -1).transpose(0, 1)
    arguments = (torch.tensor(a) for a in (labels, frames, length))
    C = F.ctc_loss(log_p, *arguments, blank=blank, reduction="none")
    C.backward(torch.tensor(dC))
    return C.detach().numpy(), leaf.grad.numpy()


def by_hand(Z, labels, frames, length, dC, *policies, blank=0):
    """C and dZ for each policy."""
    given = Z, labels, frames, length
    rows = [("ctc_loss", *given, {"blank": blank, "residuals": policy}) for policy in policies or ("save",)]
    return [outcome[:2] for outcome in outcomes(rows, dC)]


@pytest.mark.parametrize("blank", [0, 2, CLASSES - 1])
def test_values_and_gradients(blank):
    """Different lengths, no label at all, and labels that repeat; by both policies."""
    others = np.array([k for k in range(CLASSES) if k != blank])
    labels = others[RNG.integers(0, CLASSES - 1, (BATCH, 4))]
    labels[0], labels[2, :3] = others[[1, 1, 2, 2]], others[[0, 0, 0]]
    arguments = (Z, labels, INPUT_LENGTHS, LABEL_LENGTHS, DC)
    expected = by_torch(*arguments, blank=blank)
    for found in by_hand(*arguments, "save", "recompute", blank=blank):
        for one, other in zip(found, expected, strict=True):
            assert np.isfinite(other).all()
            assert relative_error(one, other) <= 1e-10


def test_a_long_sequence():
    """200 frames and 40 labels: a probability far below float64's smallest number."""
    logits, labels = 3 * RNG.standard_normal((1, 200, 6)), RNG.integers(1, 6, (1, 40))
    arguments = (logits, labels, np.array([200]), np.array([40]), np.array([-1.5]))
    expected = by_torch(*arguments)
    assert expected[0] > 200
    for found, other in zip(by_hand(*arguments)[0], expected, strict=True):
        assert relative_error(found, other) <= 1e-10


def test_no_alignment():
    """Infinite in both. Torch's gradient is NaN without zero_infinity; ours is 0."""
    labels = np.array([[1, 1, 2], [1, 2, 3]])
    arguments = (Z[:2, :3], labels, np.array([3, 3]), np.array([3, 3]), np.ones(2))
    ((C, dZ),), (expected, expected_dZ) = by_hand(*arguments), by_torch(*arguments)
    assert np.isinf([C[0], expected[0]]).all()
    assert (dZ[0] == 0).all()
    assert np.isnan(expected_dZ[0]).all()
    assert relative_error(C[1:], expected[1:]) <= 1e-10
    assert relative_error(dZ[1], expected_dZ[1]) <= 1e-10
