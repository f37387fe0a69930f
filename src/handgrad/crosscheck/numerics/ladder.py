"""Values at falling steps to both sides of a point, and what they say of the slope there."""

from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.numerics.line import Line
from handgrad.crosscheck.numerics.ridders import SURE, Coarse, diverges, ridders, roughness, stays

SMOOTH, KINK, JUMP, SILENT = 0, 1, 2, 3
EPS = float(np.finfo(np.float64).eps)


class Estimate(NamedTuple):
    """Difference's fields for the flat row, and whether a second look is worth its price."""

    slope: np.ndarray
    error: np.ndarray
    left: np.ndarray
    right: np.ndarray
    kind: np.ndarray
    unsettled: np.ndarray


class Ladder:
    """Values at ±h for falling h, and what they say."""

    def __init__(self, line: Line, scale: float) -> None:
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

    def estimate(self) -> Estimate:
        """The best that these values give, elementwise."""
        h, column = self.h, self.h[:, None]
        # One side's rounding is that of its own values: the other side may not be finite.
        value = np.abs(self.line.value)
        up_floor = EPS * np.maximum(np.abs(self.above), value)
        down_floor = EPS * np.maximum(np.abs(self.below), value)
        up_noise = np.maximum(up_floor, roughness(h, self.right)) / column
        down_noise = np.maximum(down_floor, roughness(h, self.left)) / column
        noise, sizes = np.maximum(up_noise, down_noise), np.maximum(up_floor, down_floor) / EPS
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
        flat &= np.abs(self.central[0]) * h[-6] > SURE * EPS * sizes[0]
        coarse = Coarse(
            np.where(flat, self.central[0], coarse.slope), coarse.error * ~flat, np.where(flat, 0, coarse.level)
        )
        spread = np.max(np.abs(self.central - center) * (np.arange(len(h))[:, None] <= coarse.level), axis=0)
        staircase = self._staircase(center, error, coarse) & ~jump & ~kink
        error = np.where(staircase, np.maximum(error, 4 * spread), error)
        silent = ((staircase | (error >= np.abs(center))) & (error > 1e-7 * natural)) | ~np.isfinite(center)
        kind = np.select([jump, kink, silent], [JUMP, KINK, SILENT], SMOOTH).astype(np.int8)
        unsettled = (kind != SMOOTH) | ((error > 1e-7 * np.abs(center)) & (error > 1e-9 * natural))
        return Estimate(np.where(jump, np.nan, center), np.where(jump, np.inf, error), left, right, kind, unsettled)

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


def keep(old: Estimate, new: Estimate) -> Estimate:
    """What was settled stays: more steps could only add noise to it."""
    return Estimate(*(np.where(old.unsettled, two, one) for one, two in zip(old, new, strict=True)))
