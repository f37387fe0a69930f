"""Arithmetic of a ladder of steps: Ridders' extrapolation, and what a row of slopes says about noise, jumps and kinks.

Rows are steps, largest first; columns are outputs.
"""

from typing import NamedTuple

import numpy as np

_ORDERS = 6
_CLOSE = 2.0**-12  # of the largest step: a kink must be seen from so near, else it may be another's nearby
_MARGIN = 6.0  # an error has room for so many times the noise, which four samples measured
SURE = 16.0  # so many times the noise is no noise


class Coarse(NamedTuple):
    """The best extrapolation if finer steps had no veto, its error, and the finest level in it."""

    slope: np.ndarray
    error: np.ndarray
    level: np.ndarray


def ridders(h: np.ndarray, D: np.ndarray, power: int, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, Coarse]:
    """Extrapolate slopes D (levels, n) to h = 0 as polynomials in h^power: the best, its error, and the best unvetoed.

    An extrapolation's error is the largest difference from those it was made of and from the one before it, and some
    times the noise of its finest step.
    """
    T, slopes, errors, levels = D, [], [], []
    for order in range(1, min(_ORDERS, len(h) - 1)):
        shrink = ((h[:-order] / h[order:]) ** power - 1)[:, None]
        step = T[1:] + (T[1:] - T[:-1]) / shrink
        error = np.maximum(np.abs(step - T[1:]), np.abs(step - T[:-1]))[1:]
        error = np.maximum(error, np.abs(step[1:] - step[:-1])) + _MARGIN * noise[order + 1 :]
        slopes.append(step[1:])
        errors.append(error)
        levels.append(np.arange(order + 1, len(h)))
        T = step
    S, E, level = np.concatenate(slopes), np.concatenate(errors), np.concatenate(levels)
    E = np.where(np.isfinite(S) & np.isfinite(E), E, np.inf)
    best = np.argmin(E, axis=0)
    coarse = Coarse(_pick(S, best), _pick(E, best), level[best])
    truncation = 4 * np.abs(D[level] - S)
    for k in range(len(h)):
        rows = level < k
        allowed = E[rows] + truncation[rows] * ((h[k] / h[level[rows]]) ** power)[:, None] + _MARGIN * noise[k]
        E[rows] = np.where(np.abs(D[k] - S[rows]) <= allowed, E[rows], np.inf)
    best = np.argmin(E, axis=0)
    return np.where(np.isfinite(_pick(E, best)), _pick(S, best), np.nan), _pick(E, best), coarse


def _pick(rows: np.ndarray, best: np.ndarray) -> np.ndarray:
    return np.take_along_axis(rows, best[None], 0)[0]


def roughness(h: np.ndarray, D: np.ndarray) -> np.ndarray:
    """The noise in the values behind one-sided slopes D, from how far D is from a straight line at the last steps."""
    noise = np.zeros(D.shape[1])
    for i in range(max(len(h) - 4, 0), len(h) - 2):
        a, b, c = h[i : i + 3]
        share = (b - c) / (a - c)
        residual = D[i + 1] - (1 - share) * D[i + 2] - share * D[i]
        amplified = np.sqrt(b**-2 + ((1 - share) / c) ** 2 + (share / a) ** 2)
        sample = np.abs(residual) / amplified
        noise = np.maximum(noise, np.where(np.isfinite(sample), sample, 0.0))
    return noise


def diverges(D: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Whether one-sided slopes grow by one law to the end: a jump (4 × a step), a root (2 ×), a logarithm (1 ×)."""
    steps = np.diff(D[-6:], axis=0)
    growth = steps[1:] / steps[:-1]
    lawful = np.all(growth > 0.9, axis=0) & (growth.max(0) < 1.1 * growth.min(0))
    return lawful & np.all(np.abs(steps) > SURE * noise[-5:], axis=0)


def stays(h: np.ndarray, gap: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Whether a gap between the sides is the same at the last three steps where it is more than noise."""
    # The gap itself, not an extrapolation: a curvature that jumps nearby extrapolates to a gap too, but never shows it.
    sure = np.abs(gap) > SURE * noise
    # The finest level at which it is sure; argmax finds the first in reverse order.
    last = len(gap) - 1 - np.argmax(sure[::-1], axis=0)
    three = [np.take_along_axis(gap, np.maximum(last - i, 0)[None], 0)[0] for i in range(3)]
    return (
        sure.any(0)
        & (last >= 2)
        & (h[last] <= _CLOSE * h[0])
        & (np.abs(three[0] - three[1]) < 0.1 * np.abs(three[0]))
        & (np.abs(three[0] - three[2]) < 0.2 * np.abs(three[0]))
    )
