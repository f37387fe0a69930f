"""Errors in places: a gradient that is wrong in some elements and right elsewhere."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from handgrad.crosscheck.errors import regions
from handgrad.crosscheck.errors.error import Error, nothing
from handgrad.crosscheck.errors.fit import EXACT, LEAST, NEAR, SCALED, VAGUE, Fit, Found, Wrong, inner
from handgrad.crosscheck.errors.gradient import Gradient, Made
from handgrad.crosscheck.errors.regions import Find, Place, at, elements, slices, where
from handgrad.crosscheck.errors.wording import factor, shortest

FEW = 0.2  # of what is known is little enough to be called right but for it


def _there(of: Gradient, place: Place, *factors: float) -> Iterator[Made]:
    """The gradient multiplied in a place that is neither nothing nor everything."""
    if place.region.any() and not place.region.all():
        for c in factors:
            yield place.says(factor(c, 1e-12, of.sizes)), np.where(place.region, c * of.g, of.g)


def _element(of: Gradient) -> Iterator[Made]:
    if of.g[0].size > 1:
        (top,), (last,) = (elements(at(of.shape, index)) for index in (of.top, tuple(n - 1 for n in of.shape)))
        yield from _there(of, top, 0, -1)
        offset = float(f"{of.largest or 1.0:.2g}")
        yield last.says(f"off by {shortest(offset, 0)}"), np.where(last.region, of.g + offset, of.g)


def _slice(of: Gradient) -> Iterator[Made]:
    """A row, a column, the last example, all examples but one."""
    ends = {axis: of.top[axis] for axis in sorted({0, len(of.shape) - 1})} if len(of.shape) > 1 else {}
    masks = [at(of.shape, (*[slice(None)] * axis, index)) for axis, index in ends.items()]
    if of.batch:
        last = at(of.shape, (of.batch - 1,))
        masks += [last, ~last]
    for region in masks:
        places = [place for place in slices(region, bool(of.batch), 1) if (place.region == region).all()]
        for place in places[:1] if np.count_nonzero(region) > 1 else ():
            yield from _there(of, place, 0, 2)


def _diagonal(of: Gradient) -> Iterator[Made]:
    for place in regions.diagonals(of.shape):
        if np.count_nonzero(place.region) > 1:
            yield from _there(of, place, 0)


def _branch(of: Gradient) -> Iterator[Made]:
    if of.x is not None and not np.iscomplexobj(of.x):
        for shown, y, side, bound in (("x", of.x, "<", 0), ("x", of.x, ">", 0), ("|x|", np.abs(of.x), ">", 1)):
            yield from _there(of, where(shown, y, side, bound), 0, 2)


def _at_zero(of: Gradient) -> Iterator[Made]:
    if of.x is not None:
        yield from _there(of, where("x", of.x, "==", 0), 0, 2)


# In order of precedence: kind, what it makes, and the regions that may be the wrong one.
_TABLE: tuple[tuple[str, Callable[[Gradient], Iterable[Made]], Find], ...] = (
    ("wrong at zero", _at_zero, regions.equal),
    ("one element", _element, lambda wrong, _: elements(wrong.off, most=1)),
    ("one slice", _slice, lambda wrong, of: slices(wrong.off, bool(of.batch), 1)),
    ("diagonal", _diagonal, lambda wrong, _: regions.diagonals(wrong.off.shape)),
    ("wrong branch", _branch, lambda wrong, of: regions.beyond(wrong, "x", of.x, special=True)),
    ("largest of each row", nothing, regions.largest_of_row),
    ("several slices", nothing, lambda wrong, of: slices(wrong.off, bool(of.batch), wrong.off.size)),
    ("box", nothing, regions.box),
    ("large arguments", nothing, lambda wrong, of: regions.beyond(wrong, "x", of.x, special=False)),
    ("several elements", nothing, lambda wrong, _: elements(wrong.off)),
)


def describe(wrong: Wrong, of: Gradient) -> str:
    """The region that is the wrong one, as "right but for example 3, where x < 0"; "" where it takes many words."""
    places = (regions.found(wrong, of, find) for _, _, find in _TABLE)
    return next((place.words for place in places if place), "")


def _in_place(find: Find) -> Callable[[Fit], Iterator[Found]]:
    def recognize(fit: Fit) -> Iterator[Found]:
        if fit.wrong.partly and (place := regions.found(fit.wrong, fit.of, find)):
            yield _said(fit, place)

    return recognize


def _said(fit: Fit, place: Place) -> Found:
    what, largest = fit.wrong.what, float(np.abs(fit.d).max())
    size = f", by up to {largest:.2g} of the leaf's largest" if largest < NEAR and not what else ""
    return Found(EXACT if what else VAGUE, place.says(what) + size)


def _small_or_large(of: Gradient) -> Iterator[Made]:
    finite = of.size[np.isfinite(of.size)]
    for side in "<>" if finite.size else "":
        yield from _there(of, where("|gradient|", of.size, side, float(np.median(finite))), 0)


def _by_gradient(fit: Fit) -> Iterator[Found]:
    """Where the gradient itself, another in every draw, is on one side of a bound."""
    if fit.off.all() or np.count_nonzero(fit.off) < 4 or fit.g[0].size < 2:
        return
    what, size = fit.what(fit.off)
    if size is not None:
        wrong = Wrong(fit.off, size > 2 * fit.tolerance, what, sure=True, partly=True)
        places = (place for special in (False, True) for place in regions.beyond(wrong, "gradient", fit.of.g, special))
        yield from [Found(EXACT, place.says(what)) for place in places if regions.fills(wrong, place.region)][:1]


def _some(fit: Fit) -> Iterator[Found]:
    """A few of the elements, or all that can be told from zero."""
    off, seen = fit.wrong.off, fit.wrong.seen
    wrong, known, of = np.count_nonzero(off), np.count_nonzero(seen), off.size
    if 0 < wrong <= FEW * known and fit.wrong.partly:
        yield _said(fit, Place(f"right but for {wrong} of {of} elements", off))
    elif 0 < wrong == known < of:
        which = "nonzero element" if (off == (fit.g != 0).any(0)).all() else "element large enough to compare"
        yield Found(LEAST, f"wrong in every {which} ({wrong} of {of})")


PLACES = (
    *(Error(kind, make, _in_place(find)) for kind, make, find in _TABLE),
    Error("small or large ones dropped", _small_or_large, _by_gradient),
    Error("some elements", nothing, _some),
)


def _scaled(fit: Fit) -> Iterator[Found]:
    """Wrong in a place, and everywhere by a factor."""
    seen = np.abs(fit.g) > 10 * fit.tolerance
    if np.count_nonzero(seen) < 5:
        return
    ratio = float(np.median((fit.h[seen] / fit.g[seen]).real))
    near = seen & (np.abs(fit.h - ratio * fit.g) <= 1e-3 * abs(ratio) * np.abs(fit.g))
    if not ratio or not near.any():
        return
    g, h = fit.g[near], fit.h[near]
    for _ in range(2):  # the second time for the last digits
        ratio += float((inner(g, h - ratio * g) / inner(g, g)).real)
    fits = np.abs(fit.h - ratio * fit.g) <= fit.tolerance * max(1.0, abs(ratio))
    size = factor(ratio, fit.slack(fit.g, ratio), fit.of.sizes)
    if size and np.count_nonzero(fits & seen) > 0.5 * np.count_nonzero(seen):
        rest = Fit(fit.of, fit.h / ratio * fit.scale, fit.tolerance * max(1.0, 1 / abs(ratio)) * fit.scale)
        for place in (found for error in PLACES for found in error.recognized(rest)):
            yield Found(SCALED, f"{size} and otherwise {place.words}")
            return


SCALED_PLACES = (Error("scaled, and wrong in a place", nothing, _scaled),)
