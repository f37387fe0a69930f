"""Regions of an array in words: a row, the diagonal, the elements where the argument is negative."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.errors.fit import Wrong
from handgrad.crosscheck.errors.gradient import Gradient
from handgrad.crosscheck.errors.wording import along, element, series, shortest

COVERED = 0.8  # of a region must be wrong where nothing says how large the error should be there
MOST = 2 / 3  # of a leaf is too much to call the leaf right but for it
LISTED = 3  # elements named one by one
SPECIAL = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 6.0, 20.0, 88.0)
HOLDS = {"<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal, "==": np.equal}


class Place(NamedTuple):
    """Where a gradient is wrong.

    Attributes:
      words: as "right but for row 2", "wrong for elements where x < 3" or "right on the diagonal only".
      region: its mask, of the leaf's shape; of the gradients', (draws, *shape), where each draw has another.
    """

    words: str
    region: np.ndarray

    def says(self, what: str) -> str:
        """What the gradient is there."""
        return f"{self.words}: {what} {'elsewhere' if self.words.endswith('only') else 'there'}" if what else self.words


def but_for(what: str, region: np.ndarray) -> Place:
    """ "right but for row 2"; what is wrong in most of its elements is not called right."""
    return Place(f"{'right but' if np.mean(region) < MOST else 'wrong'} for {what}", region)


Find = Callable[[Wrong, Gradient], Iterator[Place]]


def at(shape: tuple[int, ...], index: tuple[int | slice, ...]) -> np.ndarray:
    """The mask of an element or a slice."""
    region = np.zeros(shape, bool)
    region[index] = True
    return region


def elements(off: np.ndarray, most: int = LISTED) -> Iterator[Place]:
    """The elements one by one, where they are few."""
    if 0 < np.count_nonzero(off) <= most:
        places = [element(i) for i in np.argwhere(off)]
        yield but_for(f"element{'s' * (len(places) > 1)} {series(places)}", off)


def slices(off: np.ndarray, batch: bool, most: int) -> Iterator[Place]:
    """One index of an axis, or a few."""
    for axis in range(off.ndim):
        others = tuple(other for other in range(off.ndim) if other != axis)
        hit = np.asarray(off.any(others))
        region = np.broadcast_to(np.expand_dims(hit, others), off.shape)
        for these, words in ((hit, "right but for {}"), (~hit, "right for {} only")):
            indices = np.flatnonzero(these).tolist()
            if 0 < len(indices) <= min(most, hit.size / 2, 6):
                yield Place(words.format(along(axis, off.ndim, batch, indices)), region)


def diagonals(shape: tuple[int, ...]) -> Iterator[Place]:
    """The diagonal and the triangles of the last two axes."""
    if len(shape) < 2 or min(shape[-2:]) < 2:
        return
    rows, columns = np.indices(shape[-2:])
    for words, region in (
        ("right but for the diagonal", rows == columns),
        ("right on the diagonal only", rows != columns),
        ("right on and above the diagonal only", rows > columns),
        ("right on and below the diagonal only", rows < columns),
        ("right below the diagonal only", rows <= columns),
        ("right above the diagonal only", rows >= columns),
    ):
        yield Place(words, np.broadcast_to(region, shape))


def box(wrong: Wrong, _: Gradient) -> Iterator[Place]:
    """A rectangle, of half the leaf at most."""
    places = np.argwhere(wrong.off)
    if wrong.off.ndim > 1 and len(places) > 3:
        sides = list(zip(places.min(0), places.max(0) + 1, strict=True))
        region = at(wrong.off.shape, tuple(slice(a, b) for a, b in sides))
        if np.count_nonzero(region) <= region.size / 2:
            yield but_for(f"[{', '.join(f'{a}:{b}' for a, b in sides)}]", region)


def where(shown: str, y: np.ndarray, side: str, bound: float) -> Place:
    """The elements on one side of a bound."""
    return but_for(f"elements where {shown} {side} {bound + 0.0:.6g}", HOLDS[side](y, bound))


def equal(wrong: Wrong, of: Gradient) -> Iterator[Place]:
    """Where x is one number: 0, or any that several elements have."""
    if of.x is not None and wrong.off.any():
        here = of.x[wrong.off]
        if (here == here[0]).all() and (here.size > 1 or here[0] == 0):
            yield where("x", of.x, "==", here[0])


def largest_of_row(wrong: Wrong, of: Gradient) -> Iterator[Place]:
    """The largest of each row of the argument."""
    if of.x is not None and of.x.ndim > 1 and not np.iscomplexobj(of.x) and np.count_nonzero(wrong.off) > 1:
        yield but_for("the largest of each row", of.x == of.x.max(-1, keepdims=True))


def beyond(wrong: Wrong, name: str, y: np.ndarray | None, special: bool) -> Iterator[Place]:
    """y, or |y|, on one side of a bound: a special one (0, ±1, …), or any that separates the wrong from the right."""
    right = wrong.seen & ~wrong.off
    enough = (1 if wrong.sure else 3) if special else 3
    if y is None or np.count_nonzero(wrong.off) < max(enough, 2) or np.count_nonzero(right) < enough:
        return
    sizes = [(f"|{name}|", np.abs(y))]
    for shown, z in sizes if np.iscomplexobj(y) else [(name, y), *sizes]:
        off, fine = z[wrong.off], z[right]
        for side, low, high in (("<", off.max(), fine.min()), (">", fine.max(), off.min())):
            if low < high:
                bound, strict = _bound(float(low), float(high), side)
                if (bound in SPECIAL) == special:
                    yield where(shown, z, side + strict, bound)


def _bound(low: float, high: float, side: str) -> tuple[float, str]:
    """A round number between low and high, and "=" where it belongs to the side."""
    for bound in SPECIAL:
        if low < bound < high:
            return bound, ""
        if bound in (low, high):
            return bound, "=" if bound == (low if side == "<" else high) else ""
    bound = float(shortest((low + high) / 2, (high - low) / 2 * (1 - 1e-12)))
    return (bound, "") if low < bound < high else (low, "=" if side == "<" else "")


def found(wrong: Wrong, of: Gradient, find: Find) -> Place | None:
    """The first of these regions that is the wrong one; with the side of 0 and of ±1 that its arguments are on."""
    place = next((place for place in find(wrong, of) if fills(wrong, place.region)), None)
    if place is None or of.x is None or np.iscomplexobj(of.x) or "where x ==" in place.words:
        return place
    also = {}
    for shown, y, bound in (("x", of.x, 0.0), ("|x|", np.abs(of.x), 1.0)):
        for other in (where(shown, y, side, bound) for side in HOLDS) if f"where {shown} " not in place.words else ():
            if shown not in also and fills(wrong, other.region):
                also[shown] = other.words.partition(" where ")[2]
    start = " and " if "where" in place.words else ", wrong where " if place.words.endswith("only") else ", where "
    return place._replace(words=place.words + start + " and ".join(also.values())) if also else place


def fills(wrong: Wrong, region: np.ndarray) -> bool:
    """Whether it is wrong in this region, the whole of it, and right elsewhere, where something is known."""
    inside = region & wrong.seen
    missed = np.count_nonzero(inside & ~wrong.off)
    allowed = 0 if wrong.sure else (1 - COVERED) * np.count_nonzero(inside)
    return bool(missed <= allowed and not (wrong.off & ~region).any() and (~region & wrong.seen).any())
