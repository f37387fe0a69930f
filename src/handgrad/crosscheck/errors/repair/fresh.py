"""Fresh inputs for the search for a repair: other lengths, and other numbers of the same kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from handgrad.crosscheck.subject.arguments import is_inexact, largest

LENGTHS = 12  # axes longer than this are cut


def lengths(n: int, turn: int) -> Sequence[int]:
    """What an axis of this length may become."""
    if n > LENGTHS:
        near = [LENGTHS - k for k in range(1 + turn, LENGTHS - 2)]
        return [*near, *(n // k for k in (16, 8, 4, 2) if n % k == 0 and n // k > 1), n + 1 + turn]
    # Some functions take multiples alone.
    return [*(n + k for k in range(1 + turn, 12)), *(k * n for k in range(2, 6)), n - 1]


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Normal numbers, complex ones in a complex dtype."""
    x: Any = rng.standard_normal(shape)
    return np.asarray(x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def another(rng: np.random.Generator, leaf: Any, shape: tuple[int, ...], scale: float = 1.0) -> Any:
    """Other numbers of this shape that keep the leaf's signs, zeros, symmetry and range, and rows that sum to one."""
    for axis, n in enumerate(shape):
        if n != np.shape(leaf)[axis]:
            leaf = np.take(leaf, np.arange(n), axis=axis, mode="wrap")
    if not is_inexact(leaf):
        return leaf
    x = np.asarray(leaf)
    up = 1.5 if largest(x) > 1 else 1.0
    factors = rng.uniform(0.5, up, x.shape)
    if x.ndim > 1 and x.shape[-1] == x.shape[-2] and np.allclose(x, np.swapaxes(x, -1, -2).conj()):
        d = rng.uniform(0.7, 1.2, (*x.shape[:-1], 1))
        factors = d * np.swapaxes(d, -1, -2)
    new = scale * x * factors
    sums = x.sum(-1, keepdims=True) if x.ndim else np.zeros(())
    if x.ndim and x.shape[-1] > 1 and np.allclose(sums, 1):
        new = new / new.sum(-1, keepdims=True)
    return np.asarray(new).astype(x.dtype)
