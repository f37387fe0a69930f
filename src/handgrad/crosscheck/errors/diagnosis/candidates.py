"""What a gradient often is instead of itself: whole arrays to hold against it."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np

from handgrad.crosscheck.errors.diagnosis.fits import Evidence
from handgrad.crosscheck.errors.diagnosis.wording import element, series

SAMPLE = 4096  # numbers that are enough to see a step in


def instead(e: Evidence, value: np.ndarray | None, batch: bool) -> Iterator[tuple[str, np.ndarray]]:
    """(words, what the gradient would be), the simplest first; in e's units.

    Args:
      e: the evidence; its arrays are (draws, ...).
      value: the argument itself, or None where it is of no use.
      batch: whether axis 0 is the example.
    """
    g = e.g
    if np.iscomplexobj(g):
        yield "conjugate missing", g.conj()
        yield "the real part only", g.real + 0j
        yield "the imaginary part only", 1j * g.imag
        yield "real and imaginary part exchanged", 1j * g.conj()
    if g.ndim < 2 or g[0].size < 2:
        return
    yield from _transposed(g)
    for axis in range(1, g.ndim):
        if g.shape[axis] > 1:
            yield from _moved(g, axis, f"{'examples permuted' if batch and axis == 1 else f'axis {axis - 1}'}")
    if g.ndim > 2:
        yield "reversed from the first element to the last", g.reshape(len(g), -1)[:, ::-1].reshape(g.shape)
    yield from _element_by_element(e, value)
    yield "without its mean", g - g.mean(tuple(range(1, g.ndim)), keepdims=True)
    for axis in range(1, g.ndim):
        if g.shape[axis] > 1:
            yield from _reduced(g, axis)


def _transposed(g: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    axes = range(1, g.ndim)
    if g.ndim == 2:
        return
    swap = (0, *range(1, g.ndim - 2), g.ndim - 1, g.ndim - 2)
    orders = [(0, *order) for order in permutations(axes)] if g.ndim < 6 else [swap]
    for order in sorted(orders, key=lambda order: order != swap):
        if order == tuple(range(g.ndim)) or g.transpose(order).shape != g.shape:
            continue
        words = "transposed" if order == swap else f"axes in the order {tuple(axis - 1 for axis in order[1:])}"
        t = g.transpose(order)
        yield words, t
        if np.iscomplexobj(g):
            yield f"{words} and conjugate missing", t.conj()
    backwards = (0, *reversed(axes))
    if g.transpose(backwards).shape != g.shape:  # else this is one of the above
        yield "in column-major order", g.transpose(backwards).reshape(g.shape)
        yield ("read in column-major order", g.reshape(len(g), *reversed(g.shape[1:])).transpose(backwards))


def _moved(g: np.ndarray, axis: int, name: str) -> Iterator[tuple[str, np.ndarray]]:
    colon = ":" if name.startswith("examples") else ""
    yield f"{name}{colon} reversed", np.flip(g, axis)
    for step in (1, -1) if g.shape[axis] > 2 else ():
        yield f"{name}{colon} rolled by {step}", np.roll(g, step, axis)
    for step in (1, -1):
        shifted = np.roll(g, step, axis)
        shifted[(slice(None),) * axis + (0 if step == 1 else -1,)] = 0
        yield f"shifted by {step} along axis {axis - 1}", shifted


def _element_by_element(e: Evidence, value: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    g = e.g
    size = np.abs(g)
    yield "absolute value", size + 0 * g
    if not np.iscomplexobj(g):
        yield "zero where it should be negative", np.maximum(g, 0)
        yield "zero where it should be positive", np.minimum(g, 0)
        yield from _clipped(e)
    else:
        bound = float(np.abs(e.h).max())
        yield f"clipped to {bound * e.scale:.3g}", g * np.minimum(1, bound / np.where(size > 0, size, 1))
    yield "its sign instead of itself", g / np.where(size > 0, size, 1) / e.scale
    yield "squared", g * g * e.scale
    steps = np.unique(e.h.real.ravel()[:SAMPLE])
    step = float(np.diff(steps).min(initial=np.inf))
    if e.tolerance < step < np.inf:
        step = float(np.ptp(steps) / np.round(np.ptp(steps) / step))
        yield f"rounded to multiples of {step * e.scale:.3g}", np.round(g / step) * step
    if value is not None and np.ptp(np.abs(value)) > 0:
        with np.errstate(all="ignore"):
            yield "multiplied by its own argument", g * value
            quotient = g / value
        if np.isfinite(quotient).all():
            yield "divided by its own argument", quotient


def _clipped(e: Evidence) -> Iterator[tuple[str, np.ndarray]]:
    high, low = float(e.h.max()), float(e.h.min())
    # Two numbers at least must stand at the bound, or any largest number were one.
    above, below = np.count_nonzero(e.h >= high - e.tolerance), np.count_nonzero(e.h <= low + e.tolerance)
    both = max(abs(high), abs(low))
    bound = f"{both * e.scale:.3g}"
    if both > 0 and abs(high + low) <= 2 * e.tolerance and above + below > 2:
        yield f"clipped to ±{bound}", np.clip(e.g, -both, both)
    if above > 1 and high > 0:
        yield f"clipped above {high * e.scale:.3g}", np.minimum(e.g, high)
    if below > 1 and low < 0:
        yield f"clipped below {low * e.scale:.3g}", np.maximum(e.g, low)


def _reduced(g: np.ndarray, axis: int) -> Iterator[tuple[str, np.ndarray]]:
    total = np.broadcast_to(g.sum(axis, keepdims=True), g.shape)
    mean = total / g.shape[axis]
    yield f"summed over axis {axis - 1} and repeated", total
    yield f"averaged over axis {axis - 1}", mean
    yield f"without its mean over axis {axis - 1}", g - mean
    yield f"the first along axis {axis - 1}, repeated", np.broadcast_to(np.take(g, [0], axis), g.shape)
    yield f"summed cumulatively along axis {axis - 1}", np.cumsum(g, axis)
    yield f"summed cumulatively along axis {axis - 1}, from its end", np.flip(np.cumsum(np.flip(g, axis), axis), axis)


def permuted(e: Evidence, batch: bool) -> str:
    """In which other order the truth's slices or numbers are the ones by hand; "" where in none."""
    rng = np.random.default_rng(0)
    g, h = e.g, e.h
    for axis in range(1, g.ndim):
        n = g.shape[axis]
        if n < 3 or (g.ndim == 2 and not batch):
            continue
        rows, mine = (np.moveaxis(a, axis, 0).reshape(n, -1) for a in (g, h))
        weights = rng.standard_normal(rows.shape[1])
        order = _matched(rows @ weights, mine @ weights)
        if e.explained(mine - rows[order], e.tolerance, 0):
            how = _order(order)
            if batch and axis == 1:
                return "examples permuted" + (f": {how}" if how else "")
            return f"axis {axis - 1} " + (f"permuted: {how}" if "exchanged" in how else how or "permuted")
    rows, mine = g.reshape(len(g), -1).T, h.reshape(len(g), -1).T
    keys = rows @ (weights := rng.standard_normal(rows.shape[1]))
    if 2 < len(rows) == np.unique(keys).size:
        order = _matched(keys, mine @ weights)
        if e.explained(mine - rows[order], e.tolerance, 0):
            places = [
                element(np.array(np.unravel_index(i, g.shape[1:])))
                for i in np.flatnonzero(order != np.arange(len(order)))
            ]
            return f"elements {series(places)} exchanged" if len(places) == 2 else "the right numbers in another order"
    return ""


def _matched(keys: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """order with keys[order] ≈ mine, if there is one."""
    order = np.empty(len(keys), int)
    order[np.lexsort((np.imag(mine), np.real(mine)))] = np.lexsort((np.imag(keys), np.real(keys)))
    return order


def _order(order: np.ndarray) -> str:
    n = len(order)
    if (order == np.arange(n)[::-1]).all():
        return "reversed"
    step = int(-order[0] % n)
    if (order == np.roll(np.arange(n), step)).all():
        return f"rolled by {step if step <= n // 2 else step - n}"
    moved = np.flatnonzero(order != np.arange(n))
    return f"{moved[0]} and {moved[1]} exchanged" if len(moved) == 2 else ""
