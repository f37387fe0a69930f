"""Errors of order: the right numbers in the wrong places."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from handgrad.crosscheck.errors.error import Error, instead
from handgrad.crosscheck.errors.fit import EXACT, Fit, Found
from handgrad.crosscheck.errors.gradient import Gradient, Made
from handgrad.crosscheck.errors.wording import element, series


def _transposed(of: Gradient) -> Iterator[Made]:
    g, n = of.g, of.g.ndim
    swap = (0, *range(1, n - 2), n - 1, n - 2)
    orders = [(0, *order) for order in permutations(range(1, n))] if n < 6 else [swap]
    for order in sorted(orders, key=lambda order: order != swap) if n > 2 else ():
        if order != tuple(range(n)) and g.transpose(order).shape == g.shape and max(of.shape) > 1:
            words = "transposed" if order == swap else f"axes in the order {tuple(axis - 1 for axis in order[1:])}"
            yield words, g.transpose(order)
            if of.complex:
                yield f"{words} and conjugate missing", g.transpose(order).conj()


def _column_major(of: Gradient) -> Iterator[Made]:
    g = of.g
    backwards = (0, *range(g.ndim - 1, 0, -1))
    if g.transpose(backwards).shape != g.shape:  # else it is transposed
        yield "flattened in column-major order", g.transpose(backwards).reshape(g.shape)
        yield "reshaped in column-major order", g.reshape(len(g), *reversed(of.shape)).transpose(backwards)


def _reversed(of: Gradient) -> Iterator[Made]:
    for axis in of.long_axes:
        yield _moved(of, axis, "reversed"), np.flip(of.g, axis)


def _rolled(of: Gradient) -> Iterator[Made]:
    for axis in of.long_axes:
        for step in (1, -1) if of.g.shape[axis] > 2 else ():
            yield _moved(of, axis, f"rolled by {step}"), np.roll(of.g, step, axis)


def _shifted(of: Gradient) -> Iterator[Made]:
    for axis in of.long_axes:
        for step in (1, -1):
            M = np.roll(of.g, step, axis)
            M[(slice(None),) * axis + (0 if step == 1 else -1,)] = 0
            yield f"shifted by {step} along axis {axis - 1}, zero-filled", M


def _moved(of: Gradient, axis: int, how: str) -> str:
    if of.batch and axis == 1:
        return "examples permuted" + (f": {how}" if how else "")
    return f"axis {axis - 1} " + (f"permuted: {how}" if "exchanged" in how else how or "permuted")


def _examples_permuted(of: Gradient) -> Iterator[Made]:
    if of.batch:
        # Moved by any number but 0: every example is wrong, which a random order doesn't make sure of.
        order = np.random.default_rng(0).permutation(of.batch)
        places = np.empty_like(order)
        places[order] = np.roll(order, 1)
        yield _moved(of, 1, _how(places)), of.g[:, places]


def _exchanged(of: Gradient) -> Iterator[Made]:
    size = np.nan_to_num(np.max(of.size, axis=0), posinf=0.0)
    if size.size > 2:
        places = [np.unravel_index(i, of.shape) for i in sorted(np.argsort(size, axis=None)[-2:])]
        one, two = ((slice(None), *place) for place in places)
        M = of.g.copy()
        M[one], M[two] = of.g[two], of.g[one]
        yield _two(places), M


def _two(places: list[tuple[np.intp, ...]]) -> str:
    return f"elements {series([element(np.array(place)) for place in places])} exchanged"


def _is_exchanged(fit: Fit) -> Iterator[Found]:
    off = fit.wrong.off
    if np.count_nonzero(off) == 2:
        places = [tuple(place) for place in np.argwhere(off)]
        one, two = ((slice(None), *place) for place in places)
        if max(np.abs(fit.h[one] - fit.g[two]).max(), np.abs(fit.h[two] - fit.g[one]).max()) <= fit.tolerance:
            yield Found(EXACT, _two(places))


def _is_permuted(fit: Fit) -> Iterator[Found]:
    """The slices of an axis, or all elements, in another order: found by sorting a random sum of each."""
    rng, of = np.random.default_rng(0), fit.of
    axes = [axis for axis in of.long_axes if of.g.ndim > 2 or of.batch]
    for axis in (*axes, None) if not fit.large else ():
        rows, mine = (_rows(a, axis) for a in (fit.g, fit.h))
        weights = rng.standard_normal(rows.shape[1])
        keys = rows @ weights
        order = _matched(keys, mine @ weights)
        distinct = axis is not None or np.unique(keys).size == len(rows)
        if len(rows) > 2 and distinct and fit.explained(mine - rows[order], fit.tolerance, 0):
            words = "the right numbers in another order" if axis is None else _moved(of, axis, _how(order))
            yield Found(EXACT, words)
            return


def _rows(a: np.ndarray, axis: int | None) -> np.ndarray:
    return a.reshape(len(a), -1).T if axis is None else np.moveaxis(a, axis, 0).reshape(a.shape[axis], -1)


def _matched(keys: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """order with keys[order] ≈ mine, if there is one."""
    order = np.empty(len(keys), int)
    order[np.lexsort((np.imag(mine), np.real(mine)))] = np.lexsort((np.imag(keys), np.real(keys)))
    return order


def _how(order: np.ndarray) -> str:
    n = len(order)
    if (order == np.arange(n)[::-1]).all():
        return "reversed"
    step = int(-order[0] % n)
    if (order == np.roll(np.arange(n), step)).all():
        return f"rolled by {step if step <= n // 2 else step - n}"
    moved = np.flatnonzero(order != np.arange(n))
    return f"{moved[0]} and {moved[1]} exchanged" if len(moved) == 2 else ""


ORDER = (
    Error("transposed", _transposed),
    Error("column-major", _column_major),
    Error("reversed", _reversed),
    Error("off by one", _rolled),
    instead(
        "elements reversed",
        "all elements in reverse order",
        lambda of: np.flip(of.g, tuple(range(1, of.g.ndim))),
        lambda of: len(of.long_axes) > 1,
    ),
)
EXCHANGED = (
    Error("two elements exchanged", _exchanged, _is_exchanged),
    Error("examples permuted", _examples_permuted, _is_permuted),
)
SHIFTED = (Error("shifted", _shifted),)
