"""The cotangents that a gradient is tried on."""

import math
import zlib
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.subject.arguments import Leaves, largest, wide, widened
from handgrad.crosscheck.subject.programs import Programs

BASIS = 40  # outputs up to so many elements: the whole Jacobian, one cotangent for each
ENOUGH = 2**22  # numbers of a single cotangent, above which more of them would only fill the memory


class Draws(NamedTuple):
    """Cotangents.

    Attributes:
      dYs: one list for each draw: the random ones first, then the Jacobian's rows.
      random: how many are random.
      groups: {leaf of the output: draws that reach it alone}, and under None those that reach all. Each are judged
        together, so that a coarse or a large output hides nothing in another.
    """

    dYs: list[Leaves]
    random: int
    groups: dict[int | None, tuple[int, ...]]


def cotangents(programs: Programs, seed: int, draws: int, leaves: Leaves, basis: int = BASIS) -> Draws:
    """The cotangents to try.

    Random ones first: normal numbers, drawn by seed and the output leaf's name, so that another leaf doesn't change
    them. Where the output has several leaves, each is scaled by its own size and then also tried alone. The unit
    vectors of a small output follow: the rows of the whole Jacobian.
    """
    shapes, names = programs.outputs, programs.output_names
    several = len(shapes) > 1
    size = sum(math.prod(y.shape) for y in shapes)
    draws = 1 if size > ENOUGH else draws
    scales = _scales(programs, leaves) if several else [1.0] * len(shapes)
    found: list[Leaves] = []
    reaches: list[int | None] = [*[None] * draws, *(range(len(shapes)) if several else ())]
    for k, only in enumerate(reaches):
        found.append(
            [
                _normal((seed, zlib.crc32(name.encode()), k), y, scale if only in (None, j) else 0.0)
                for j, (name, y, scale) in enumerate(zip(names, shapes, scales, strict=True))
            ]
        )
    count = len(found)
    if 1 < size <= basis:
        for j, y in enumerate(shapes):
            units = (1, 1j) if np.dtype(wide(y.dtype)).kind == "c" else (1,)
            for flat in range(math.prod(y.shape)):
                for unit in units:
                    dYs = [np.zeros(other.shape, other.dtype) for other in shapes]
                    dYs[j].reshape(-1)[flat] = unit * scales[j]
                    found.append(dYs)
                    reaches.append(j if several else None)
    groups = {j: tuple(k for k, only in enumerate(reaches) if only == j) for j in dict.fromkeys(reaches)}
    return Draws(found, count, groups)


def _scales(programs: Programs, leaves: Leaves) -> list[float]:
    """For each leaf of the output the power of two that brings its largest element near 1."""
    sizes = [largest(Y) for Y in programs.primal(widened(leaves))]
    return [2.0 ** float(np.clip(-np.round(np.log2(size)), -12, 12)) if size > 0 else 1.0 for size in sizes]


def _normal(seed: tuple[int, ...], y: Any, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    numbers = scale * rng.standard_normal(y.shape)
    if np.dtype(wide(y.dtype)).kind == "c":
        numbers = numbers + 1j * scale * rng.standard_normal(y.shape)
    return np.asarray(numbers).astype(y.dtype)
