"""Finite differences that know how wrong they are, and what they stand on.

A ladder of steps h, h/4, h/16, … gives slopes to the left and to the right. Ridders' method extrapolates them to h = 0
and takes the extrapolation that its neighbors contradict least (C. J. F. Ridders, Advances in Engineering Software 4,
1982). Three things are added, because here the answer judges other people's derivatives:

- Rounding noise is measured from how far the smallest steps are from a parabola.
- A finer step has a veto over a coarser extrapolation, so that a kink nearby is not taken for a slope. Where the ladder
  doesn't settle, it goes on down to the digits' end.
- A slope that is one thing in the small and another in the large, everywhere (a staircase: digits lost inside the
  primal), is SILENT: nobody can tell from values.

What no values can show stays hidden: a kink weaker than 1e-8 of the slope or so, one nearer than the noise allows, an
oscillation that the steps happen to meet in phase, and a primal that loses all but one or two digits of its argument.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.numerics.ridders import SURE, Coarse, diverges, ridders, roughness, stays

SMOOTH, KINK, JUMP, SILENT = 0, 1, 2, 3

Primal = Callable[[list[np.ndarray]], Sequence[Any]]

_LEVELS = 10  # from 2^-5 to 2^-23 of the scale
_DEEPER = 5  # more, twice, where the ladder doesn't settle: down to 2^-43
_EPS = float(np.finfo(np.float64).eps)
_GRAVITY = np.array([0, 2, 3, 1])  # which kind a complex number takes from its two parts: JUMP, KINK, SILENT, SMOOTH


class Difference(NamedTuple):
    """The derivative of every output along one line; each field has one array for each output, of its shape.

    Attributes:
      slope: float64 (complex128 for complex outputs): the derivative; the mean of the two sides at a KINK, NaN at a
        JUMP.
      error: float64: how far off the slope may be; at a KINK it spans both sides, so that any subgradient is within it.
      left, right: the slopes of either side, on their own; not finite where that side has none.
      kind: int8. SMOOTH; KINK: the two sides differ and stay apart as the step shrinks; JUMP: discontinuous, not
        finite or infinitely steep on one side at least; SILENT: no digit is sure.
    """

    slope: list[np.ndarray]
    error: list[np.ndarray]
    left: list[np.ndarray]
    right: list[np.ndarray]
    kind: list[np.ndarray]


def along(primal: Primal, leaves: Sequence[np.ndarray], direction: Sequence[np.ndarray | None]) -> Difference:
    """The derivative of primal(leaves + t direction) by t, at t = 0.

    Args:
      primal: a pure function of a list of arrays like leaves to a list of arrays, in float64. It is called 21 times on
        smooth ground, 41 times on a kink, and at most some 80 times where nothing settles.
      leaves: float64, complex128 or integer arrays.
      direction: arrays like leaves, or None where a leaf stays.
    Returns:
      Difference.
    Raises:
      ValueError: nothing moves, or what moves is not float64 or complex128, or shapes differ.
    """
    line = _Line(primal, leaves, direction)
    return _difference(line, line.scale, line.smallest)


def coordinate(
    primal: Primal, leaves: Sequence[np.ndarray], leaf: int, index: tuple[int, ...], phase: complex = 1
) -> Difference:
    """The derivative of primal by one element of one leaf, with steps relative to that element.

    Args:
      primal, leaves: as for `along`.
      leaf, index: which element.
      phase: of modulus 1: the direction that a complex element moves in, 1j for its imaginary part.
    Returns:
      Difference, per unit of the element.
    Raises:
      ValueError: the leaf is not float64 or complex128, or is real where the phase isn't.
      IndexError: no such element.
    """
    x = leaves[leaf]
    if phase != 1 and x.dtype.kind != "c":
        raise ValueError(f"leaf {leaf} is {x.dtype} and has no imaginary part")
    direction: list[np.ndarray | None] = [None] * len(leaves)
    unit = np.zeros_like(x)
    unit[index] = phase
    direction[leaf] = unit
    line = _Line(primal, leaves, direction, one_coordinate=True)
    z = complex(x[index])
    own = {1: abs(z.real), 1j: abs(z.imag)}.get(phase, abs(z))
    own = own if np.isfinite(own) else 0.0
    return _difference(line, own or line.scale, max(line.scale, 1.0))


def complex_step(
    primal: Primal, leaves: Sequence[np.ndarray], direction: Sequence[np.ndarray | None]
) -> list[np.ndarray] | None:
    """Im primal(leaves + i h direction) / h with h = 1e-100: exact to rounding where the primal is analytic.

    It is right only for primals made of analytic operations: |x|, a conjugate, or a comparison of complex numbers
    make it wrong without a word. Use it to confirm, never alone to accuse.

    Args:
      primal, leaves, direction: as for `along`; all real.
    Returns:
      One float64 array for each output; None where the primal refuses complex numbers, is complex itself, where a real
      part doesn't stay what it was, or something isn't finite.
    """
    h = 1e-100
    if any(np.iscomplexobj(x) for x in leaves) or any(v is not None and np.iscomplexobj(v) for v in direction):
        return None
    moved = [x if v is None else x + 1j * h * v for x, v in zip(leaves, direction, strict=True)]
    try:
        with np.errstate(all="ignore"):
            values = [np.asarray(y) for y in primal(list(leaves))]
            stepped = [np.asarray(y) for y in primal(moved)]
    except Exception:  # a primal may refuse in whatever way it likes
        return None
    slopes = []
    for y, z in zip(values, stepped, strict=True):
        if y.dtype.kind == "c" or y.shape != z.shape:
            return None
        with np.errstate(all="ignore"):
            slope = np.asarray(np.imag(z), np.float64) / h
            close = np.abs(np.real(z) - y) <= 1e-12 * np.max(np.abs(y), initial=0.0)
        if not (np.all(np.isfinite(slope)) and np.all(close)):
            return None
        # A real part alone: the primal dropped the imaginary one somewhere, and a zero slope would be a lie.
        if z.dtype.kind != "c" and y.dtype.kind == "f":
            return None
        slopes.append(slope)
    return slopes


class _Line:
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
            size = _rms(x) or 1.0
            scales.append(size if self.one_coordinate else size / _rms(np.asarray(v)))
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


def _rms(x: np.ndarray) -> float:
    """Root mean square of the finite elements, without overflow; 0 where there are none."""
    sizes = np.abs(x)
    sizes = sizes[np.isfinite(sizes)]
    largest = float(np.max(sizes, initial=0.0))
    return largest * float(np.sqrt(np.mean((sizes / largest) ** 2))) if largest > 0 else 0.0


class _Estimate(NamedTuple):
    """Difference's fields for the flat row, and whether a second look is worth its price."""

    slope: np.ndarray
    error: np.ndarray
    left: np.ndarray
    right: np.ndarray
    kind: np.ndarray
    unsettled: np.ndarray


def _difference(line: _Line, scale: float, other: float) -> Difference:
    """Climb down the ladder at `scale`; where that doesn't settle, the one at `other` too, and deeper."""
    with np.errstate(all="ignore"):
        ladder = _Ladder(line, max(scale, other))
        base = 2.0 ** np.floor(np.log2(np.clip(scale, 1e-280, 1e280)))
        ladder.climb(base / 32 * 0.25 ** np.arange(_LEVELS))
        found = ladder.estimate()
        if np.any(found.unsettled) and not 1 / 64 < other / scale < 64:
            second = 2.0 ** np.floor(np.log2(np.clip(other, 1e-280, 1e280)))
            ladder.climb(second / 32 * 0.25 ** np.arange(_LEVELS))
            found = _keep(found, ladder.estimate())
        for _ in range(2):
            if np.any(found.unsettled):
                ladder.climb(ladder.h[-1] * 0.25 ** np.arange(1, _DEEPER + 1))
                found = _keep(found, ladder.estimate())
        return Difference(
            slope=line.unflatten(found.slope, _complex),
            error=line.unflatten(found.error, np.hypot),
            left=line.unflatten(found.left, _complex),
            right=line.unflatten(found.right, _complex),
            kind=line.unflatten(found.kind, lambda a, b: np.where(_GRAVITY[a] >= _GRAVITY[b], a, b)),
        )


def _complex(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    number = real.astype(np.complex128)  # real + 1j * imaginary would make NaN of an infinite part
    number.imag = imaginary
    return number


def _keep(old: _Estimate, new: _Estimate) -> _Estimate:
    """What was settled stays: more steps could only add noise to it."""
    return _Estimate(*(np.where(old.unsettled, two, one) for one, two in zip(old, new, strict=True)))


class _Ladder:
    """Values at ±h for falling h, and what they say."""

    def __init__(self, line: _Line, scale: float) -> None:
        self.line, self.scale = line, scale
        self.rungs: dict[float, tuple[float, np.ndarray, float, np.ndarray]] = {}

    def climb(self, steps: np.ndarray) -> None:
        """Evaluate at ± each step; a step that rounding swallows is left out."""
        for h in map(float, steps):
            if h in self.rungs:
                continue
            up, above = self.line.at(h)
            down, below = self.line.at(-h)
            if up > 0 > down:
                self.rungs[h] = (up, above, -down, below)
        rungs = [self.rungs[h] for h in sorted(self.rungs, reverse=True)]
        self.h = np.array(sorted(self.rungs, reverse=True))
        up, down = np.array([rung[0] for rung in rungs]), np.array([rung[2] for rung in rungs])
        self.above, self.below = np.array([rung[1] for rung in rungs]), np.array([rung[3] for rung in rungs])
        value = self.line.value
        self.right = (self.above - value) / up[:, None]
        self.left = (value - self.below) / down[:, None]
        # Where rounding made the two steps differ, these weights still cancel the curvature.
        self.central = (self.right * down[:, None] + self.left * up[:, None]) / (up + down)[:, None]

    def estimate(self) -> _Estimate:
        """The best that these values give, elementwise."""
        h, column = self.h, self.h[:, None]
        # One side's rounding is that of its own values: the other side may not be finite.
        value = np.abs(self.line.value)
        up_floor = _EPS * np.maximum(np.abs(self.above), value)
        down_floor = _EPS * np.maximum(np.abs(self.below), value)
        up_noise = np.maximum(up_floor, roughness(h, self.right)) / column
        down_noise = np.maximum(down_floor, roughness(h, self.left)) / column
        noise, sizes = np.maximum(up_noise, down_noise), np.maximum(up_floor, down_floor) / _EPS
        center, error, coarse = ridders(h, self.central, 2, noise)
        right, right_error, _ = ridders(h, self.right, 1, 2 * up_noise)
        left, left_error, _ = ridders(h, self.left, 1, 2 * down_noise)

        right = np.where(diverges(self.right, 2 * up_floor / column), np.copysign(np.inf, self.right[-1]), right)
        left = np.where(diverges(self.left, 2 * down_floor / column), np.copysign(np.inf, self.left[-1]), left)
        cut = ~np.isfinite(self.right[-3:]).all(0) | ~np.isfinite(self.left[-3:]).all(0)
        jump = cut | np.isinf(right) | np.isinf(left)
        gap, gap_error = np.abs(right - left), right_error + left_error
        apart = gap > 4 * gap_error
        kink = apart & stays(h, self.right - self.left, 4 * noise) & ~jump
        error = np.where(kink, np.maximum(error, gap / 2 + gap_error), error)
        center = np.where(kink, (right + left) / 2, center)
        error = np.where((gap > gap_error) & ~kink, np.maximum(error, 2 * gap), error)
        error = np.where(np.isfinite(center), error, np.inf)

        # A natural size for a slope: what the function would have if it changed by all of itself over the scale.
        natural = np.max(np.where(np.isfinite(sizes), sizes, 0), axis=0) / self.scale
        # Exactly flat in the small, on both sides, and not for want of digits: what moved at the largest step is to be
        # explained.
        flat = (
            np.all((self.right[-6:] == 0) & (self.left[-6:] == 0), axis=0) & (self.right[0] != 0) & (self.left[0] != 0)
        )
        flat &= np.abs(self.central[0]) * h[-6] > SURE * _EPS * sizes[0]
        coarse = Coarse(
            np.where(flat, self.central[0], coarse.slope), coarse.error * ~flat, np.where(flat, 0, coarse.level)
        )
        spread = np.max(np.abs(self.central - center) * (np.arange(len(h))[:, None] <= coarse.level), axis=0)
        staircase = self._staircase(center, error, coarse) & ~jump & ~kink
        error = np.where(staircase, np.maximum(error, 4 * spread), error)
        silent = ((staircase | (error >= np.abs(center))) & (error > 1e-7 * natural)) | ~np.isfinite(center)
        kind = np.select([jump, kink, silent], [JUMP, KINK, SILENT], SMOOTH).astype(np.int8)
        unsettled = (kind != SMOOTH) | ((error > 1e-7 * np.abs(center)) & (error > 1e-9 * natural))
        return _Estimate(np.where(jump, np.nan, center), np.where(jump, np.inf, error), left, right, kind, unsettled)

    def _staircase(self, fine: np.ndarray, error: np.ndarray, coarse: Coarse) -> np.ndarray:
        """Whether a veto came from a flat tread of a staircase, and not from a true slope beside a kink.

        Beside a kink, the slope at a far point is another one; on a staircase it is the same slope there as here, on
        both sides, although the values in between have moved by more.
        """
        doubtful = np.abs(coarse.slope - fine) > 4 * (coarse.error + error)
        shape = np.ones_like(doubtful)
        for secants in (self.right, self.left):
            secant = np.take_along_axis(secants, coarse.level[None], 0)[0]
            doubtful &= np.abs(secant - fine) > np.abs(coarse.slope - fine) / 4
        if not np.any(doubtful):
            return doubtful
        tread = self.h[-1]
        for level in np.unique(coarse.level[doubtful]):
            far = self.h[level]
            for sign, secants, values in ((1.0, self.right, self.above), (-1.0, self.left, self.below)):
                _, beyond = self.line.at(sign * (far + tread))
                local = (beyond - values[level]) / (sign * tread)
                off, moved = np.abs(local - fine), np.abs(secants[level] - fine)
                same = (off < moved / 4) | (off > 4 * moved)
                shape &= same | (coarse.level != level)
        return doubtful & shape
