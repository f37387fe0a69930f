"""When an explanation of a wrong gradient holds: within tolerance on every draw, and not by chance."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from math import lgamma, log, log10
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors.gradient import Gradient, Made
from handgrad.crosscheck.errors.wording import factor, shortest

CHANCE = -4.0  # log₁₀ of the odds under which a fit is no accident
MANY = 8  # numbers from which the residual of a fit tells how exact its factor is
NEAR = 1e-3  # an error below this share of the leaf's largest number is said as a share
COSINE = 0.99  # squared: what is less parallel can't fit, and needs no closer look
SAMPLE = 2**13  # numbers that rule out most of what doesn't fit a large leaf
SHORT = 2**12  # numbers that BLAS multiplies on one core
# Numbers in all draws together. Above LARGE, explanations that sort or need further gradients are left out.
LARGE = 2**18

# Precedence of explanations that hold: it is this; a multiple of this; the right gradient with some of this mixed in;
# something true that fits many errors; no more than how much is wrong.
EXACT, SCALED, MIXED, VAGUE, LEAST = range(5)


class Found(NamedTuple):
    """An explanation that holds; within a group of errors the lowest rank is said."""

    rank: int
    words: str


class Wrong(NamedTuple):
    """Where a gradient is wrong.

    Attributes:
      off: (*shape) outside the tolerance in some draw.
      seen: (*shape) where the same error would be outside the tolerance: elsewhere, nothing is known to be right.
      what: what it is where it is wrong, as "zero"; "" where that isn't one thing.
      sure: whether `what` says how large the error would be elsewhere; else that is a guess.
      partly: whether some of the gradient is right, and not by luck.
    """

    off: np.ndarray
    seen: np.ndarray
    what: str
    sure: bool
    partly: bool


class Fit:
    """A gradient under test beside the right one, in units of the right one's largest number.

    Attributes:
      of: the right gradient, in its own units.
      g, h: (draws, *shape) right and under test, finite; d = h − g.
      tolerance: two numbers closer than this are the same.
      scale: the largest |g|, by which all of it was divided.
    """

    def __init__(self, of: Gradient, hand: np.ndarray, tolerance: float):
        self.of, self.scale = of, of.largest or 1.0
        self.g, self.h = over(of.g, self.scale), over(hand, self.scale)
        self.d, self.tolerance = self.h - self.g, tolerance / self.scale

    @cached_property
    def large(self) -> bool:
        """Whether explanations that sort or need further gradients take too long."""
        return self.g.size > LARGE

    @cached_property
    def off(self) -> np.ndarray:
        """Where h is outside the tolerance, in each draw."""
        return np.abs(self.d) > self.tolerance

    @cached_property
    def rank(self) -> int:
        """How many draws are linearly independent: those of a scalar output are all proportional, and count as one."""
        rows = self.g.reshape(len(self.g), -1)
        rows = rows / np.maximum(np.sqrt([inner(row, row).real for row in rows]), 1e-300)[:, None]
        gram = np.array([[inner(one, two) for two in rows] for one in rows])
        return max(1, int(np.linalg.matrix_rank(gram, 1e-6, hermitian=True)))

    @cached_property
    def _squares(self) -> tuple[float, float, float]:
        gg, hh, dd = (float(inner(x, x).real) for x in (self.g, self.h, self.d))
        return gg, hh, dd

    @cached_property
    def _sample(self) -> tuple[Any, ...]:
        places = np.random.default_rng(0).integers(0, self.g.size, SAMPLE)
        at = np.unravel_index(places, self.g.shape)
        return at, self.g[at], self.h[at], self.d[at]

    def instead(self, made: Iterable[Made]) -> Iterator[Found]:
        """Which of these arrays h is, or is a multiple of, or has mixed in."""
        several = self.g[0].size > 1  # one element tells nothing but a factor
        for words, M in made:
            t = M if M.dtype == self.g.dtype else M.astype(self.g.dtype)
            c, share = self._instead(t)
            if c is not None:
                t = over(t, self.scale)
                if abs(c - 1) <= self.bound(t, c):
                    yield Found(EXACT, words)
                elif several:
                    yield Found(SCALED, f"{factor(c, self.slack(t, c), self.of.sizes)} and {words}")
            elif share is not None and several:
                yield Found(MIXED, f"{words}, mixed in with weight {share:.2g}")

    def _instead(self, t: np.ndarray) -> tuple[complex | None, float | None]:
        """c where h = c t; share, between 0 and 1, where h = g + share (t − g)."""
        if self.large:
            at, g, h, d = self._sample
            few = t[at] / self.scale
            if h.any() and not parallel(few, h, 0.9) and not parallel(few - g, d, 0.9):
                return None, None
        t = over(t, self.scale)
        gg, hh, dd = self._squares
        tt, gt, td = float(inner(t, t).real), inner(self.g, t), inner(t, self.d)
        c = share = None
        # Their angles first, which need no new array.
        if abs(np.conj(gt) + td) ** 2 >= COSINE * tt * hh > 0:
            c = self.multiple(t, self.h)
        if c is None and (td.real - inner(self.g, self.d).real) ** 2 >= COSINE * (tt - 2 * gt.real + gg) * dd > 0:
            share = self.multiple(t - self.g, self.d)
        return c, share.real if share is not None and 0 < share.real < 1 else None

    def proportional(self) -> complex | None:
        """c where h = c g, or None."""
        return self.multiple(self.g, self.h)

    def added(self, a: np.ndarray) -> complex | None:
        """c where h = g + c a (a in h's own units), or None."""
        return self.multiple(np.broadcast_to(a / self.scale, self.g.shape).astype(self.g.dtype), self.d)

    def multiple(self, t: np.ndarray, y: np.ndarray) -> complex | None:
        """c where y = c t, or None."""
        t = np.ascontiguousarray(t)
        if not parallel(t, y, COSINE):
            return None
        # Once more with what is left: c's last digits survive the sum.
        tt = float(inner(t, t).real)
        c = inner(t, y) / tt
        # What is larger than the right gradient has its rounding errors made larger.
        size = abs(c) * float(np.abs(t).max())
        tolerance = self.tolerance * max(1.0, size)
        if self.large:
            at = self._sample[0]
            if np.any(np.abs(y[at] - c * t[at]) > 2 * tolerance + 1e-9 * size):
                return None
        c = c + inner(t, y - c * t) / tt
        return complex(c) if self.explained(y - c * t, tolerance, 1) else None

    def slack(self, t: np.ndarray, c: complex) -> float:
        """How exactly c is known where h = c t."""
        slack = self.bound(t, c)
        if t.size >= MANY:
            slack = min(slack, 3 * float(norm(self.h - c * t) / norm(t)))
        return max(slack, float(jnp.finfo(self.of.dtype).eps) / 2 * abs(c), 2e-15 * abs(c))

    def bound(self, t: np.ndarray, c: complex) -> float:
        """How far from c a factor may be at most where h = c t: all that is within tolerance counts as right."""
        largest = max(float(np.max(np.abs(t), initial=0.0)), 1e-300)
        return 2 * self.tolerance * max(1.0, abs(c) * largest) / largest

    def _by_luck(self, right: int, of: int) -> bool:
        """Whether this many of so many elements may be right in every draw though all are wrong."""
        if right == of:
            return False
        chance = log10(max(self.tolerance / float(np.median(np.abs(self.d[self.off]))), 1e-300))
        ways = (lgamma(of + 1) - lgamma(right + 1) - lgamma(of - right + 1)) / log(10)
        return right * self.rank * chance + ways > CHANCE

    def explained(self, residual: np.ndarray, tolerance: float | np.ndarray, free: int) -> bool:
        """Whether what is left is within tolerance, and the fit of `free` numbers no accident.

        A random error lies within an angle ρ of a given direction with a chance of about ρ^(n − 1) in n dimensions.
        """
        size = np.abs(residual)
        if not np.all(size <= tolerance):
            return False
        share = self.rank / len(self.g) if self.g[0].size > 1 else 1.0
        n = (np.count_nonzero(self.off) * share - free) * (2 if self.of.complex else 1)
        ratio = norm(size) / (self._squares[2] ** 0.5 or 1.0)
        return bool(n > 0 and n * log10(max(ratio, 1e-300)) < CHANCE)

    @cached_property
    def wrong(self) -> Wrong:
        """Where h is wrong, and what it is there."""
        off = np.asarray(self.off.any(0))
        what, size = self.what(np.broadcast_to(off, self.g.shape))
        sure = size is not None
        seen = ((size if size is not None else self._guess()) > 2 * self.tolerance).any(0)
        seen, wrong = seen | off, int(np.count_nonzero(off))
        partly = 0 < wrong < off.size and not self._by_luck(int(np.count_nonzero(seen)) - wrong, off.size)
        return Wrong(off, seen, what, sure, partly)

    def _guess(self) -> np.ndarray:
        """How large the error would be if it were everywhere as large a share of the gradient as where it is seen."""
        d, g = np.abs(self.d[self.off]), np.abs(self.g[self.off])
        return min(1.0, float(np.median(d / np.maximum(g, 1e-300)))) * np.abs(self.g) if d.size else np.abs(self.g)

    def what(self, where: np.ndarray) -> tuple[str, np.ndarray | None]:
        """What h is in these places, and how large the error would be if it were that everywhere."""
        g, h, d = self.g[where], self.h[where], self.d[where]
        gg, tolerance = float(inner(g, g).real), self.tolerance
        if gg > 0:
            c = complex(1 + inner(g, d) / gg)
            bound = tolerance * max(1.0, abs(c))
            fits = np.abs(h - (c if self.of.complex else c.real) * g).max() <= bound
            slack = max(2 * bound / float(np.abs(g).max()), float(jnp.finfo(self.of.dtype).eps) / 2 * abs(c))
            if fits and (g.size > 1 or abs(c) <= slack or abs(c + 1) <= slack) and abs(c - 1) > slack:
                return factor(c, slack, self.of.sizes), abs(c - 1) * np.abs(self.g)
        if g.size > 1 and np.ptp(d.real) <= 2 * tolerance and np.ptp(d.imag) <= 2 * tolerance:
            offset = float(d.real.mean())
            words = shortest(offset * self.scale, tolerance * self.scale)
            words = words if abs(offset) >= NEAR else f"{offset:.2g} of the leaf's largest"
            return "off by a constant" if self.of.complex else f"off by {words}", np.full(self.g.shape, abs(d[0]))
        if g.size > 1 and np.ptp(h.real) <= tolerance and np.ptp(h.imag) <= tolerance:
            return f"equal to {(h if self.of.complex else h.real).mean() * self.scale:.4g}", None
        return "", None


def parallel(t: np.ndarray, y: np.ndarray, cosine: float) -> bool:
    """Whether the squared cosine of their angle is at least this."""
    tt, yy = float(inner(t, t).real), float(inner(y, y).real)
    return 0 < tt < np.inf and yy > 0 and abs(inner(t, y)) ** 2 >= cosine * tt * yy


def over(a: np.ndarray, scale: float) -> Any:
    """a by a real number, contiguous: two real divisions take a tenth of a complex one."""
    a = np.ascontiguousarray(a)
    return (a.view(np.float64) / scale).view(a.dtype) if np.iscomplexobj(a) else a / scale


def inner(a: np.ndarray, b: np.ndarray) -> Any:
    """Σ a* b. (BLAS would use all cores for long arrays, which takes a hundred times as long where they are busy.)"""
    a, b = a.ravel(), b.ravel()
    if not np.iscomplexobj(a):
        return np.einsum("i,i->", a, b)
    return sum((np.vdot(a[i : i + SHORT], b[i : i + SHORT]) for i in range(0, a.size, SHORT)), 0j)


def norm(a: np.ndarray) -> float:
    """√Σ |a|²."""
    return float(inner(a, a).real) ** 0.5
