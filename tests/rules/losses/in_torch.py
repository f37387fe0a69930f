"""What the tests of losses against PyTorch share: its autograd beside the rule, in float64."""

from typing import Any

import numpy as np
import pytest
from rules.losses.rows import outcomes

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

RNG = np.random.default_rng(0)
SHAPE = BATCH, TOKENS, N = 4, 3, 5
Z, NUMBERS = RNG.standard_normal((2, *SHAPE)) * 2
LARGE = np.array([[1e4, -1e4, 0.25, 9999.0], [-1e4, -1e4, -9999.5, -1e4], [1e4, 1e4, 1e4, 1e4]])
PROBABILITIES = RNG.uniform(0, 1, SHAPE)
BITS = RNG.integers(0, 2, SHAPE)
DISTRIBUTIONS = RNG.dirichlet(np.ones(N), SHAPE[:2])
DC = RNG.standard_normal(BATCH)


def relative_error(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_torchs(*rows: Any, bar: float = 1e-12) -> None:
    """C and the cotangent of each argument of numbers, no further apart than the bar.

    Args:
      *rows: (rule, the loss in PyTorch, *arguments), the rule's options last if it has any. An argument may be None.
    """
    dC = DC[: len(rows[0][2])]
    for row, found in zip(rows, outcomes([(row[0], *row[2:]) for row in rows], dC), strict=True):
        arguments = [a for a in row[2:] if not isinstance(a, dict)]
        leaves = [None if a is None else torch.tensor(a, requires_grad=a.dtype == np.float64) for a in arguments]
        expected = row[1](*leaves)
        expected.backward(torch.tensor(dC))
        assert np.isfinite(found[0]).all()
        assert relative_error(found[0], expected.detach().numpy()) <= bar, row
        for leaf, cotangent in zip(leaves, found[1:], strict=False):
            if leaf is not None and leaf.requires_grad:
                assert relative_error(cotangent, leaf.grad.numpy()) <= bar, row
            else:
                assert cotangent is None


def summed(C: Any) -> Any:
    """Each example's sum."""
    return C.reshape(len(C), -1).sum(1)


def elementwise(function: Any, **options: Any) -> Any:
    """A function of torch.nn.functional as a loss for each example."""
    return lambda prediction, target: summed(function(prediction, target, reduction="none", **options))


def cross_entropy(z: Any, y: Any, weight: Any = None, **options: Any) -> Any:
    """F.cross_entropy has the classes behind the batch."""
    y = y if y.ndim < z.ndim else y.movedim(-1, 1)
    return summed(F.cross_entropy(z.movedim(-1, 1), y, weight, reduction="none", **options))


def with_extras(z: Any, y: Any, z_loss: float = 0.0, softcap: float | None = None, **options: Any) -> Any:
    s = z if softcap is None else softcap * torch.tanh(z / softcap)
    counts = y != options.get("ignore_index", -100)
    return cross_entropy(s, y, **options) + z_loss * summed(counts * torch.logsumexp(s, -1) ** 2)


EXTRAS = (
    {"z_loss": 0.1},
    {"softcap": 2.0},
    {"label_smoothing": 0.2, "z_loss": 0.1, "softcap": 3.0, "ignore_index": -100},
)
