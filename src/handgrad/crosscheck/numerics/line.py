"""A function of arrays along one line, as one flat row of real numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Primal = Callable[[list[np.ndarray]], Sequence[Any]]


class Line:
    """primal(leaves + t direction), as one flat row of real numbers."""

    def __init__(
        self,
        primal: Primal,
        leaves: Sequence[np.ndarray],
        direction: Sequence[np.ndarray | None],
        one_coordinate: bool = False,
    ) -> None:
        self.primal, self.leaves, self.direction = primal, list(leaves), list(direction)
        self.one_coordinate = one_coordinate
        scales, smallest = [], []
        for x, v in zip(leaves, direction, strict=True):
            if v is None or not np.any(v):
                continue
            if x.dtype not in (np.float64, np.complex128):
                raise ValueError(f"a leaf that moves must be float64 or complex128, not {x.dtype}")
            if np.shape(v) != x.shape:
                raise ValueError(f"the direction is {np.shape(v)} where the leaf is {x.shape}")
            size = rms(x) or 1.0
            scales.append(size if self.one_coordinate else size / rms(np.asarray(v)))
            with np.errstate(all="ignore"):
                shares = np.abs(x) / np.abs(v)
            smallest.append(np.min(shares[np.isfinite(shares) & (shares > 0)], initial=scales[-1]))
        if not scales:
            raise ValueError("nothing moves: the direction is zero")
        self.scale, self.smallest = float(min(scales)), float(min(smallest))
        values = [np.asarray(y) for y in primal(list(self.leaves))]
        self.shapes, self.complex = [y.shape for y in values], [y.dtype.kind == "c" for y in values]
        self.value = self._flat(values)

    def _flat(self, values: Sequence[Any]) -> np.ndarray:
        parts = [np.asarray(y) for y in values]
        parts = [
            y.astype(np.complex128).ravel().view(np.float64) if c else y.ravel()
            for y, c in zip(parts, self.complex, strict=True)
        ]
        return np.concatenate([np.asarray(part, np.float64) for part in parts]) if parts else np.zeros(0)

    def at(self, t: float) -> tuple[float, np.ndarray]:
        """The step that floating point really made (known for a single coordinate), and the values there."""
        moved = [x if v is None else x + t * v for x, v in zip(self.leaves, self.direction, strict=True)]
        if self.one_coordinate:
            (x, y, v) = next(
                (x, y, v) for x, y, v in zip(self.leaves, moved, self.direction, strict=True) if v is not None
            )
            made = float(np.sum(((y - x) / v)[v != 0]).real)
            t = made if np.isfinite(made) else t
        return t, self._flat(self.primal(moved))

    def unflatten(self, flat: np.ndarray, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[np.ndarray]:
        """One array for each output; `combine` makes one number of a complex output's two."""
        arrays, start = [], 0
        for shape, is_complex in zip(self.shapes, self.complex, strict=True):
            stop = start + int(np.prod(shape)) * (2 if is_complex else 1)
            part = flat[start:stop]
            arrays.append((combine(part[::2], part[1::2]) if is_complex else part).reshape(shape))
            start = stop
        return arrays


def rms(x: np.ndarray) -> float:
    """Root mean square of the finite elements, without overflow; 0 where there are none."""
    sizes = np.abs(x)
    sizes = sizes[np.isfinite(sizes)]
    largest = float(np.max(sizes, initial=0.0))
    return largest * float(np.sqrt(np.mean((sizes / largest) ** 2))) if largest > 0 else 0.0
