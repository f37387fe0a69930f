"""What rounding does: answers at neighboring inputs, and how the error by hand scatters among inputs nearby."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.subject.arguments import Leaves, is_inexact, largest, wide
from handgrad.crosscheck.subject.programs import Programs

Way = Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]  # (leaves, dY) -> (Y, gradients)


def neighbors(
    way: Way, leaves: Leaves, dYs: list[Leaves], answers: list[Leaves], Ys: Leaves, seed: int
) -> tuple[list[float], list[float]]:
    """How far the answer of one way, autodiff's say, moves when every number that it is given moves by at most one unit
    in its last place, and when the cotangent is another multiple of itself, which draws every rounding on its way anew.

    Returns:
      for each wanted leaf, and for each leaf of the output, the root mean square over neighbors at the element where
      it is largest.
    """
    rng, count = np.random.default_rng((seed, 1)), tolerance.NEIGHBORS
    moves: list[list[np.ndarray]] = [[] for _ in answers[0]]
    Y_moves: list[list[np.ndarray]] = [[] for _ in Ys]
    for s in range(count):
        k = s % len(dYs)
        c = rng.uniform(1, 2)
        near = [nudged(int(rng.integers(2**32)), leaf) for leaf in leaves]
        near_Ys, found = way(near, [_times(c, dY) for dY in dYs[k]])
        for of_leaf, a, b in zip(moves, found, answers[k], strict=True):
            of_leaf.append(_move(_wide(a) / c, b))
        for of_output, a, b in zip(Y_moves, near_Ys, Ys, strict=True):
            of_output.append(_move(a, b))
    return [_root_mean_square(one) for one in moves], [_root_mean_square(one) for one in Y_moves]


def conditioning(programs: Programs, leaves: Leaves, dYs: list[Leaves], truth: list[Leaves], seed: int) -> list[float]:
    """How far the truth itself moves among the same neighbors: what no program in this dtype can help."""
    rng = np.random.default_rng((seed, 1))
    moves: list[list[np.ndarray]] = [[] for _ in truth[0]]
    for s in range(tolerance.NEIGHBORS):
        k = s % len(dYs)
        near = [nudged(int(rng.integers(2**32)), leaf) for leaf in leaves]
        for of_leaf, a, b in zip(moves, programs.in_float64(near, dYs[k])[1], truth[k], strict=True):
            of_leaf.append(_move(a, b))
    return [_root_mean_square(one) for one in moves]


def nudged(seed: int, array: Any) -> Any:
    """Each number as it is, or one unit in the last place up or down; 0 stays 0, integers stay.

    Which of the three is a matter of the number and the seed alone: what is equal stays equal, so that a tie isn't
    broken.
    """
    if not is_inexact(array):
        return array
    x = _wide(array)
    if np.iscomplexobj(x):
        real, imaginary = (nudged(seed, part.astype(np.finfo(array.dtype).dtype)) for part in (np.real(x), np.imag(x)))
        return (real + 1j * imaginary).astype(array.dtype)
    bits = np.ascontiguousarray(x).view(np.uint64)
    mixed = (bits ^ np.uint64(seed + 1)) * np.uint64(0x9E3779B97F4A7C15)
    way = (mixed >> np.uint64(61)).astype(np.int64).reshape(x.shape) % 3 - 1
    _, exponent = np.frexp(x)
    unit = np.ldexp(2 * tolerance.unit_roundoff(array.dtype), exponent - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = (x + np.where(x == 0, 0, way * unit)).astype(array.dtype)
    return np.where(np.isfinite(_wide(moved)), moved, array).astype(array.dtype)


def scatter(programs: Programs, leaves: Leaves, dYs: list[Leaves], seed: int) -> tuple[list[float], list[float]]:
    """The largest second difference of the error by hand, e(x + δ) − 2 e(x) + e(x − δ), by √6.

    Of a wrong formula's smooth error little is left of that, of independent rounding errors √6 of them.

    Returns:
      for each wanted leaf, and for each leaf of the output.
    """
    rng = np.random.default_rng((seed, 8))
    found = [0.0] * (len(programs.problem.wanted) + len(programs.output_names))

    def errors(leaves: Leaves, dYs: Leaves) -> Leaves:
        (Ys, hand), (exact_Ys, truth) = programs.by_hand(leaves, dYs), programs.in_float64(leaves, dYs)
        with np.errstate(invalid="ignore"):
            return [_wide(h) - t for h, t in zip([*hand, *Ys], [*truth, *exact_Ys], strict=True)]

    for s in range(tolerance.NEARBY):
        dY = dYs[s % len(dYs)]
        here = errors(leaves, dY)
        shaken = [_shaken(rng, leaf) for leaf in leaves]
        above, below = (errors([pair[side] for pair in shaken], dY) for side in (0, 1))
        with np.errstate(invalid="ignore"):
            bent = [largest(a - 2 * e + b) / math.sqrt(6) for a, e, b in zip(above, here, below, strict=True)]
        found = [max(pair) for pair in zip(found, bent, strict=True)]
    return found[: len(programs.problem.wanted)], found[len(programs.problem.wanted) :]


def _shaken(rng: np.random.Generator, array: Any) -> tuple[Any, Any]:
    """Each number moved up and down by at most a 64th of itself: near enough for the same formula, and far enough for
    other roundings all the way through."""
    if not is_inexact(array):
        return array, array
    share = tolerance.NEAR * rng.uniform(-1, 1, array.shape)
    with np.errstate(over="ignore"):
        return tuple((_wide(array) * (1 + side * share)).astype(array.dtype) for side in (1, -1))


def _times(c: float, dY: Any) -> Any:
    return (c * _wide(dY)).astype(dY.dtype)


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(wide(array.dtype))


def _move(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(a.astype(wide(a.dtype)) - b.astype(wide(b.dtype)))


def _root_mean_square(moves: list[np.ndarray]) -> float:
    """At the element where it is largest; of numbers whose squares leave float64's range too."""
    stacked = np.stack(moves)
    size = largest(stacked)
    return size * largest(np.sqrt(np.mean((stacked / size) ** 2, axis=0))) if size > 0 else 0.0
