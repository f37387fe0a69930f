"""When one explanation of a wrong gradient holds: within tolerance on every draw, and better than chance."""

from collections.abc import Sequence
from functools import cached_property
from math import lgamma, log, log10
from typing import Any

import numpy as np

CHANCE = -4.0  # log₁₀ of the odds under which a fit is no accident
MANY = 8  # numbers from which what a fit leaves over tells how exact it is
COSINE = 0.99  # squared: what is less parallel can't fit, and needs no closer look


class Evidence:
    """A gradient beside the true one, in units of the true one's largest number.

    Attributes:
      g: (draws, ...) the truth; h: by hand; d = h − g; all finite.
      tolerance: two numbers closer than this are the same.
      scale: the largest |truth|, by which all of it was divided.
    """

    def __init__(self, truth: np.ndarray, hand: np.ndarray, tolerance: float):
        self.scale = float(np.max(np.abs(truth), initial=0.0)) or 1.0
        self.g, self.h = np.ascontiguousarray(truth / self.scale), np.ascontiguousarray(hand / self.scale)
        self.d = self.h - self.g
        self.tolerance = tolerance / self.scale

    @cached_property
    def off(self) -> np.ndarray:
        """Where h is outside the tolerance."""
        return np.abs(self.d) > self.tolerance

    @cached_property
    def _squares(self) -> tuple[float, float, float]:
        gg, hh, dd = (float(inner(x, x).real) for x in (self.g, self.h, self.d))
        return gg, hh, dd

    def instead(self, t: np.ndarray) -> tuple[complex | None, float | None]:
        """How h is made from t, another array than the truth.

        Returns:
          c where h = c t, or None.
          share where h = g + share (t − g), between 0 and 1: some of the way from the truth to t; or None.
        """
        t = np.ascontiguousarray(t)
        gg, hh, dd = self._squares
        tt, gt, td = float(inner(t, t).real), inner(self.g, t), inner(t, self.d)
        c = share = None
        # Their angles first, which need no new array.
        if abs(np.conj(gt) + td) ** 2 >= COSINE * tt * hh > 0:
            c = self._fit(t, self.h)
        if c is None and (td.real - inner(self.g, self.d).real) ** 2 >= COSINE * (tt - 2 * gt.real + gg) * dd > 0:
            share = self._fit(t - self.g, self.d)
        return c, share.real if share is not None and 0 < share.real < 1 else None

    def proportional(self) -> complex | None:
        """c where h = c g, or None."""
        return self._fit(self.g, self.h)

    def added(self, a: np.ndarray) -> complex | None:
        """s where h = g + s a; None where no s does."""
        return self._fit(a, self.d)

    def slack(self, t: np.ndarray, c: complex) -> float:
        """How exactly c is known where h = c t."""
        slack = self.bound(t, c)
        if t.size >= MANY:
            slack = min(slack, 3 * float(norm(self.h - c * t) / norm(t)))
        return max(slack, 2e-15 * abs(c))

    def bound(self, t: np.ndarray, c: complex) -> float:
        """How far from c a factor may be at most where h = c t: all that is within tolerance counts as right."""
        largest = max(float(np.max(np.abs(t), initial=0.0)), 1e-300)
        return 2 * self.tolerance * max(1.0, abs(c) * largest) / largest

    def by_luck(self, right: int, of: int) -> bool:
        """Whether this many of so many elements may be right in every draw though all are wrong."""
        if right == of:
            return False
        chance = log10(max(self.tolerance / float(np.median(np.abs(self.d[self.off]))), 1e-300))
        ways = (lgamma(of + 1) - lgamma(right + 1) - lgamma(of - right + 1)) / log(10)
        return right * len(self.g) * chance + ways > CHANCE

    def explained(self, residual: np.ndarray, tolerance: float, free: int) -> bool:
        """Whether what is left is within tolerance, and the fit of `free` numbers no accident.

        A random error lies within an angle ρ of a given direction with a chance of about ρ^(n − 1) in n dimensions.
        """
        size = np.abs(residual)
        if not np.max(size, initial=0.0) <= tolerance:
            return False
        n = int(np.count_nonzero(self.off)) * (2 if np.iscomplexobj(self.d) else 1) - free
        ratio = float(norm(size)) / (self._squares[2] ** 0.5 or 1.0)
        return n > 0 and n * log10(max(ratio, 1e-300)) < CHANCE

    def _fit(self, t: np.ndarray, y: np.ndarray) -> complex | None:
        t = np.ascontiguousarray(t)
        tt, ty, yy = float(inner(t, t).real), inner(t, y), float(inner(y, y).real)
        if not (0 < tt < np.inf and abs(ty) ** 2 >= COSINE * tt * yy):
            return None
        # Once more with what is left: c's last digits survive the sum.
        c = ty / tt
        c = c + inner(t, y - c * t) / tt
        # What is larger than the truth has the truth's errors made larger.
        tolerance = self.tolerance * max(1.0, abs(c) * float(np.abs(t).max()))
        return complex(c) if self.explained(y - c * t, tolerance, 1) else None


def inner(a: np.ndarray, b: np.ndarray) -> Any:
    """Σ a* b. (BLAS would do it with all cores, which takes a hundred times as long where they are busy.)"""
    return np.einsum("i,i->", a.conj().ravel(), b.ravel())


def norm(a: np.ndarray) -> float:
    """√Σ |a|²."""
    return float(inner(a, a).real) ** 0.5


def wide(array: Any) -> np.ndarray:
    """In float64, or complex128."""
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def stack(arrays: Sequence[Any], dtype: Any = None) -> np.ndarray:
    """(draws, ...) in float64 or complex128; in `dtype` where one is given."""
    stacked = np.stack([wide(array) for array in arrays])
    return stacked if dtype is None else stacked.astype(dtype)
