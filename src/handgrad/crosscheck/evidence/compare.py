"""A gradient beside the truth, element by element: pure NumPy, so that thousands can be judged on the same evidence."""

from collections.abc import Sequence

import numpy as np

from handgrad.crosscheck.evidence.evidence import LeafEvidence
from handgrad.crosscheck.subject.arguments import Leaves, wide


def stack(cotangents: Sequence[Leaves], i: int) -> np.ndarray | None:
    """Leaf i's gradients over all draws, wide; None where they don't have one shape."""
    arrays = [np.asarray(draw[i]) for draw in cotangents]
    if len({a.shape for a in arrays}) > 1:
        return None
    return np.stack([a.astype(wide(a.dtype)) for a in arrays])


def wrong(leaf: LeafEvidence, hand: np.ndarray | None) -> np.ndarray | None:
    """Which elements are outside the tolerance: (draws, *shape) booleans; None where the shape is wrong already.

    An element whose truth isn't known is not among them.
    """
    if hand is None or hand.shape != leaf.truth.shape:
        return None
    bound = leaf.tolerance if leaf.slack is None else leaf.tolerance + leaf.slack
    with np.errstate(invalid="ignore"):
        return ~(np.abs(hand - leaf.truth) <= bound) & np.isfinite(leaf.truth) & ~overflows(leaf, hand)


def overflows(leaf: LeafEvidence, hand: np.ndarray) -> np.ndarray:
    """Where neither the hand nor autodiff has a number in this dtype, though float64 has one."""
    return ~np.isfinite(hand) & ~np.isfinite(leaf.autodiff) & ~leaf.trap
