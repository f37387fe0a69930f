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

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.numerics.ladder import (
    JUMP as JUMP,
    KINK as KINK,
    SILENT as SILENT,
    SMOOTH as SMOOTH,
    Ladder,
    keep,
)
from handgrad.crosscheck.numerics.line import Line, Primal

_LEVELS = 10  # from 2^-5 to 2^-23 of the scale
_DEEPER = 5  # more, twice, where the ladder doesn't settle: down to 2^-43
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
    line = Line(primal, leaves, direction)
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
    line = Line(primal, leaves, direction, one_coordinate=True)
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


def _difference(line: Line, scale: float, other: float) -> Difference:
    """Climb down the ladder at `scale`; where that doesn't settle, the one at `other` too, and deeper."""
    with np.errstate(all="ignore"):
        ladder = Ladder(line, max(scale, other))
        base = 2.0 ** np.floor(np.log2(np.clip(scale, 1e-280, 1e280)))
        ladder.climb(base / 32 * 0.25 ** np.arange(_LEVELS))
        found = ladder.estimate()
        if np.any(found.unsettled) and not 1 / 64 < other / scale < 64:
            second = 2.0 ** np.floor(np.log2(np.clip(other, 1e-280, 1e280)))
            ladder.climb(second / 32 * 0.25 ** np.arange(_LEVELS))
            found = keep(found, ladder.estimate())
        for _ in range(2):
            if np.any(found.unsettled):
                ladder.climb(ladder.h[-1] * 0.25 ** np.arange(1, _DEEPER + 1))
                found = keep(found, ladder.estimate())
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
