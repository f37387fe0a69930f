"""What a wrong gradient is, in a sentence: the simplest explanation that holds on every draw."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from handgrad.crosscheck.errors import forms
from handgrad.crosscheck.errors.catalogue import GROUPS, QUICK
from handgrad.crosscheck.errors.fit import EXACT, LARGE, LEAST, SCALED, Fit, Found
from handgrad.crosscheck.errors.gradient import Gradient, argument, wide

HUGE = 2**22  # numbers in all draws together, above which only factors and places are looked for


class Specimen(NamedTuple):
    """One leaf's gradient under test, and the right one.

    Attributes:
      name: "W".
      hand: the gradient under test for each draw of the cotangents, in whatever shape and dtype it came; or None.
      truth: the right one for each draw, float64 or complex128, in the leaf's shape.
      tolerance: absolute: two numbers closer than this are the same.
      value: the argument itself.
      dYs: the cotangents of each draw.
      sizes: {"batch": 32, "n_out": 4}: what a factor may be.
      others: the right gradients of the other leaves, by name.
      one: this leaf's right gradient for any other cotangents; None where that takes too long.
      dtype: the leaf's.
    """

    name: str
    hand: list[np.ndarray]
    truth: list[np.ndarray]
    tolerance: float
    value: np.ndarray
    dYs: list[list[np.ndarray]]
    sizes: dict[str, int]
    others: dict[str, list[np.ndarray]]
    one: Callable[[list[np.ndarray]], np.ndarray] | None
    dtype: np.dtype


def diagnose(specimen: Specimen) -> str:
    """What the gradient under test is, in one sentence without its subject: "2 × too large", "transposed".

    A sentence is said only where it holds on every draw within the tolerance (of a large gradient: on the two that are
    most wrong), and not by chance; of several that hold, the first of the catalogue. Returns "" where the gradient is
    right or nothing fits.
    """
    s = specimen
    if any(hand is None or np.asarray(hand).dtype == object for hand in s.hand):
        return "None instead of an array"
    with np.errstate(all="ignore"):
        if {np.shape(hand) for hand in s.hand} != {s.truth[0].shape}:
            return forms.other_shape(s.hand, s.truth, s.others, s.tolerance)
        came, due = np.asarray(s.hand[0]).dtype, np.dtype(s.dtype)
        said = [] if came == due else [f"dtype {', '.join(came.names or [str(came)])} instead of {due}"]
        if came.names is not None:  # JAX's float0, which holds nothing
            return said[0]
        if len(s.truth) > 2 and len(s.truth) * s.truth[0].size > LARGE:
            s = _most_wrong(s)
        truth, hand = _stack(s.truth), _stack(s.hand)
        if np.iscomplexobj(hand) and not np.issubdtype(due, np.complexfloating):
            hand = np.real(hand)
        tolerance, precision = forms.precision(truth, hand, due, s.tolerance)
        if precision and not said:
            said = [f"computed in {precision} instead of {due}"]
        return "; ".join(filter(None, [*said, _numbers(s, truth, hand.astype(truth.dtype), tolerance)]))


def _most_wrong(s: Specimen) -> Specimen:
    """The two draws that are most wrong: of a large gradient they say as much, sooner."""
    errors = [
        np.max(np.abs(wide(hand) - truth), initial=0, where=np.isfinite(truth))
        for hand, truth in zip(s.hand, s.truth, strict=True)
    ]
    kept = sorted(np.argsort(errors)[-2:])  # NaN is the largest
    others = {name: [draws[k] for k in kept] for name, draws in s.others.items()}
    hand, truth, dYs = ([draws[k] for k in kept if draws] for draws in (s.hand, s.truth, s.dYs))
    return s._replace(hand=hand, truth=truth, dYs=dYs, others=others)


def _numbers(s: Specimen, truth: np.ndarray, hand: np.ndarray, tolerance: float) -> str:
    """What the numbers are, the shape being right: where they aren't finite, and elsewhere."""
    known = np.isfinite(truth)
    broken = known & ~np.isfinite(hand)
    known &= ~broken
    others = {name: _stack(t) for name, t in s.others.items() if t[0].shape == s.truth[0].shape}
    if not np.iscomplexobj(truth):
        others = {name: t for name, t in others.items() if not np.iscomplexobj(t)}
    x, everywhere = argument(s.value, truth.shape[1:]), bool(known.all())
    g = truth if everywhere else np.where(known, truth, 0)
    of = Gradient(s.name, g, np.dtype(s.dtype), x, s.sizes, others, s.dYs, s.one)
    said = [forms.not_finite(of, hand, broken)] if broken.any() else []
    fit = Fit(of, hand if everywhere else np.where(known, hand, 0), tolerance)
    said += [explained(fit)] if fit.off.any() and not broken.all(0).all() else []
    return ", elsewhere ".join(filter(None, said))


def explained(fit: Fit) -> str:
    """What the catalogue says of it: of each group the lowest rank, of the groups the first."""
    best = Found(LEAST + 1, "")
    for group in GROUPS if fit.g.size <= HUGE else QUICK:
        for error in group:
            for found in error.recognized(fit):
                best = found if found.rank < best.rank else best
                if best.rank == EXACT:
                    return best.words
        if best.rank <= SCALED:
            return best.words
    return best.words


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    return np.stack([wide(array) for array in arrays])
