"""Where a gradient is wrong that is right elsewhere, and what it is there."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.errors.diagnosis.fits import Evidence, inner
from handgrad.crosscheck.errors.diagnosis.wording import along, element, factor, series, shortest

COVERED = 0.8  # of a region must be wrong where nothing says how large the error should be there
FEW = 0.2  # of a leaf is little enough to be called right but for it
LISTED = 3  # elements named one by one
NEAR = 1e-3  # an error below this, as a share of the leaf's largest number, is said in figures


class Wrong(NamedTuple):
    """Where it is wrong.

    Attributes:
      off: (...) bool, what is wrong.
      seen: (...) bool, what would have been seen if it were wrong: a factor of zero can't be seen.
      sure: whether seen is known, or a guess.
    """

    off: np.ndarray
    seen: np.ndarray
    sure: bool

    def fills(self, region: np.ndarray) -> bool:
        """Whether it is wrong in this region, the whole of it, and nowhere else."""
        inside = region & self.seen
        missed = np.count_nonzero(inside & ~self.off)
        allowed = 0 if self.sure else (1 - COVERED) * np.count_nonzero(inside)
        return bool(missed <= allowed and not (self.off & ~region).any() and (~region & self.seen).any())


def right_but_for(e: Evidence, value: np.ndarray | None, batch: bool, sizes: dict[str, int]) -> str:
    """ "right but for column 2: zero there"; "" where it is right nowhere, or nowhere in particular."""
    any_draw = np.asarray(e.off.any(0))
    share = np.count_nonzero(any_draw) / max(any_draw.size, 1)
    if not 0 < share < 1:
        return _by_gradient(e, sizes) if e.g[0].size > 1 else ""
    if exchanged := _exchanged(e, any_draw):
        return exchanged
    what, predicted = _what(e, np.broadcast_to(any_draw, e.g.shape), sizes)
    seen = np.ones_like(any_draw) if predicted is None else (predicted > 2 * e.tolerance).any(0)
    wrong = Wrong(any_draw, seen | any_draw, predicted is not None)
    largest = float(np.abs(e.d).max())
    only = np.argwhere(any_draw)
    if len(only) == 1 and largest < NEAR:
        return f"element {element(only[0])} alone is off by {largest:.2g} of the leaf's largest"
    if e.by_luck(int(np.count_nonzero(wrong.seen & ~any_draw)), any_draw.size):
        return ""
    place = describe(wrong, value, batch)
    if not place and (words := _by_gradient(e, sizes)):
        return words
    if not place and share <= FEW:
        place = f"right but for {len(only)} of {any_draw.size} elements"
    if what and place:
        return f"{place}: {what} {'elsewhere' if place.endswith('only') else 'there'}"
    return place + (f", by up to {largest:.2g} of the leaf's largest" if place and largest < NEAR else "")


def describe(wrong: Wrong, value: np.ndarray | None, batch: bool) -> str:
    """ "right but for example 3", "right on the diagonal only"; "" where it is nothing that a few words can say."""
    for words, region in _regions(wrong, value, batch):
        if wrong.fills(region):
            return words
    return ""


def _regions(wrong: Wrong, value: np.ndarray | None, batch: bool) -> Iterator[tuple[str, np.ndarray]]:
    off = wrong.off
    places = np.argwhere(off)
    listed = (
        "right but for element" + ("s " if len(places) > 1 else " ") + series([element(i) for i in places[:LISTED]])
    )
    x = None if value is None or value.shape != off.shape else value
    if x is not None and (len(places) > 1 or (x[off] == 0).all()):
        yield from _equal(off, x)
    if len(places) == 1:
        yield listed, off
    yield from _slices(off, batch, most=1)
    yield from _diagonals(off)
    if x is not None and len(places) > 1:
        yield from _thresholds(wrong, x, "x", special=True)
        if x.ndim > 1 and not np.iscomplexobj(x):
            yield "right but for the largest of each row", x == x.max(-1, keepdims=True)
    yield from _slices(off, batch, most=off.size)
    yield from _box(places, off)
    if x is not None and len(places) > 2:
        yield from _thresholds(wrong, x, "x", special=False)
    if len(places) <= LISTED:
        yield listed, off


def _slices(off: np.ndarray, batch: bool, most: int) -> Iterator[tuple[str, np.ndarray]]:
    for axis in range(off.ndim):
        others = tuple(other for other in range(off.ndim) if other != axis)
        hit = np.asarray(off.any(others))
        n, wrong, right = hit.size, np.flatnonzero(hit), np.flatnonzero(~hit)
        region = np.broadcast_to(np.expand_dims(hit, others), off.shape)
        if 0 < len(wrong) <= min(most, n / 2, 6):
            yield f"right but for {along(axis, off.ndim, batch, wrong.tolist())}", region
        if 0 < len(right) <= min(most, n / 2, 6):
            yield f"right for {along(axis, off.ndim, batch, right.tolist())} only", region


def _diagonals(off: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if off.ndim < 2 or min(off.shape[-2:]) < 2:
        return
    rows, columns = np.indices(off.shape[-2:])
    for words, region in (
        ("right but for the diagonal", rows == columns),
        ("right on the diagonal only", rows != columns),
        ("right on and above the diagonal only", rows > columns),
        ("right on and below the diagonal only", rows < columns),
        ("right below the diagonal only", rows <= columns),
        ("right above the diagonal only", rows >= columns),
    ):
        yield words, np.broadcast_to(region, off.shape)


def _box(places: np.ndarray, off: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if off.ndim < 2 or len(places) < 4:
        return
    low, high = places.min(0), places.max(0) + 1
    region = np.zeros_like(off)
    region[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    where = ", ".join(f"{a}:{b}" for a, b in zip(low, high, strict=True))
    if np.count_nonzero(region) <= off.size / 2:
        yield f"right but for [{where}]", region


def _equal(off: np.ndarray, x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    here = x[off][0]
    if (x[off] == here).all():
        yield f"right but for elements where x == {here:.6g}".replace("-0", "0"), x == here


def _thresholds(wrong: Wrong, x: np.ndarray, name: str, special: bool) -> Iterator[tuple[str, np.ndarray]]:
    """x on one side of a bound: a special one (0, ±1, …), or any that parts the wrong from the right."""
    right = wrong.seen & ~wrong.off
    enough = 1 if special and wrong.sure else 3
    if np.count_nonzero(wrong.off) < enough or np.count_nonzero(right) < enough:
        return
    sizes: list[tuple[str, np.ndarray]] = [(f"|{name}|", np.abs(x))]
    for shown, y in sizes if np.iscomplexobj(x) else [(name, x), *sizes]:
        off, fine = y[wrong.off], y[right]
        for side, low, high in (("<", off.max(), fine.min()), (">", fine.max(), off.min())):
            if not low < high:
                continue
            bound, strict = _bound(float(low), float(high), side)
            if (bound in SPECIAL) == special:
                holds: Callable = {"<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal}[
                    side + strict
                ]
                yield f"right but for elements where {shown} {side}{strict} {bound:.6g}", holds(y, bound)


SPECIAL = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 6.0, 20.0, 88.0)


def _bound(low: float, high: float, side: str) -> tuple[float, str]:
    """A round number between low and high, and "=" where it belongs to the side."""
    for bound in SPECIAL:
        if low < bound < high:
            return bound, ""
        if bound in (low, high):
            return bound, "=" if bound == (low if side == "<" else high) else ""
    bound = float(shortest((low + high) / 2, (high - low) / 2 * (1 - 1e-12)))
    return (bound, "") if low < bound < high else (low, "=" if side == "<" else "")


def _exchanged(e: Evidence, off: np.ndarray) -> str:
    if np.count_nonzero(off) != 2:
        return ""
    one, two = np.argwhere(off)
    first, second = (..., *one), (..., *two)
    apart = max(np.abs(e.h[first] - e.g[second]).max(), np.abs(e.h[second] - e.g[first]).max())
    return f"elements {element(one)} and {element(two)} exchanged" if apart <= e.tolerance else ""


def _by_gradient(e: Evidence, sizes: dict[str, int]) -> str:
    """Where the gradient itself, another in every draw, is on one side of a bound."""
    if e.off.all() or np.count_nonzero(e.off) < 4:
        return ""
    what, predicted = _what(e, e.off, sizes)
    if predicted is None:
        return ""
    wrong = Wrong(e.off, predicted > 2 * e.tolerance, sure=True)
    for words, region in _thresholds(wrong, e.g * e.scale, "gradient", special=False):
        if wrong.fills(region):
            return f"{words}: {what} there"
    for words, region in _thresholds(wrong, e.g * e.scale, "gradient", special=True):
        if wrong.fills(region):
            return f"{words}: {what} there"
    return ""


def _what(e: Evidence, where: np.ndarray, sizes: dict[str, int]) -> tuple[str, np.ndarray | None]:
    """What it is where it is wrong, and how large the error would be everywhere if it were that everywhere."""
    g, h, d = e.g[where], e.h[where], e.d[where]
    gg = float(inner(g, g).real)
    tolerance = e.tolerance
    if gg > 0:
        c = complex(1 + inner(g, d) / gg)
        bound = tolerance * max(1.0, abs(c))
        fits = np.abs(h - (c if np.iscomplexobj(g) else c.real) * g).max() <= bound
        slack = 2 * bound / float(np.abs(g).max())
        if fits and (g.size > 1 or abs(c) <= slack or abs(c + 1) <= slack) and abs(c - 1) > slack:
            return factor(c, slack, sizes), abs(c - 1) * np.abs(e.g)
    if g.size > 1 and np.ptp(d.real) <= 2 * tolerance and np.ptp(d.imag) <= 2 * tolerance:
        offset = shortest(float(d.real.mean()) * e.scale, tolerance * e.scale)
        return f"off by {offset}" if not np.iscomplexobj(d) else "off by a constant", np.broadcast_to(
            abs(d[0]), e.g.shape
        )
    if g.size > 1 and np.ptp(h.real) <= tolerance and np.ptp(h.imag) <= tolerance:
        return f"{h.real.mean() * e.scale:.4g} throughout", None
    return "", None
