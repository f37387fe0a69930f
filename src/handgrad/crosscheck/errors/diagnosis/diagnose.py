"""What a wrong gradient is: the simplest explanation that holds on every draw."""

from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.diagnosis import candidates, cotangents
from handgrad.crosscheck.errors.diagnosis.fits import Evidence, inner, norm, stack, wide
from handgrad.crosscheck.errors.diagnosis.misshapen import other_shape
from handgrad.crosscheck.errors.diagnosis.regions import Wrong, describe, right_but_for
from handgrad.crosscheck.errors.diagnosis.wording import factor, shortest

# Numbers in all draws together. Above the first, explanations that sort or ask for more gradients are left out;
# above the second, all but factors and regions.
LARGE, HUGE = 2**18, 2**22
LISTED = 1000  # numbers looked at for how many different ones there are
SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}


class Specimen(NamedTuple):
    """One leaf's gradient, by hand and true.

    Attributes:
      name: "W".
      hand: one array for each draw of the cotangents, in whatever shape and dtype it came; or None.
      truth: one array for each draw, float64 or complex128, in the leaf's shape.
      tolerance: absolute: two numbers closer than this are the same.
      value: the argument itself.
      dYs: the cotangents of each draw.
      sizes: {"batch": 32, "n_out": 4}: what a factor may be.
      others: the truths of the other leaves, by name.
      one: this leaf's true gradient for any other cotangents; None where that is too dear.
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
    """What the gradient by hand is, in one sentence without its subject: "2 × too large", "transposed".

    A sentence is said only where it holds on every draw within the tolerance, and an accident is out of the question;
    of several that hold, the simplest. Returns "" where the gradient is right or nothing fits.
    """
    if any(hand is None or np.asarray(hand).dtype == object for hand in specimen.hand):
        return "None where an array is due"
    with np.errstate(all="ignore"):
        shapes = {np.shape(hand) for hand in specimen.hand}
        if shapes != {specimen.truth[0].shape}:
            return other_shape(specimen.hand, specimen.truth, specimen.others, specimen.tolerance)
        came, due = np.asarray(specimen.hand[0]).dtype, np.dtype(specimen.dtype)
        said = [] if came == due else [f"dtype {', '.join(came.names or [str(came)])} where {due} came in"]
        if came.names is not None:  # JAX's float0, which holds nothing
            return said[0]
        if np.issubdtype(came, np.complexfloating) and not np.issubdtype(due, np.complexfloating):
            specimen = specimen._replace(hand=[np.real(hand) for hand in specimen.hand])
        truth, hand = (stack(arrays, stack(specimen.truth).dtype) for arrays in (specimen.truth, specimen.hand))
        tolerance, precision = _precision(specimen, truth, hand)
        if precision and not said:
            said = [f"computed in {precision} where {due} came in"]
        return "; ".join(filter(None, [*said, _values(specimen, truth, hand, tolerance)]))


def _precision(specimen: Specimen, truth: np.ndarray, hand: np.ndarray) -> tuple[float, str]:
    """The tolerance for numbers rounded to a lower precision than came in, and its name; else the tolerance and ""."""
    bits = SIGNIFICANT_BITS.get(str(np.real(np.empty(0, specimen.dtype)).dtype), 0)
    sure = np.abs(truth) > specimen.tolerance
    largest = float(np.max(np.abs(truth[np.isfinite(truth)]), initial=0.0))
    some = hand.ravel()[:LISTED][np.isfinite(hand.ravel()[:LISTED])]
    for name, fewer in SIGNIFICANT_BITS.items():
        if fewer >= bits:
            break
        # Numbers that the lower precision doesn't hold by themselves.
        if not _held(some, fewer).all():
            continue
        telling = np.abs(hand[sure & ~_held(truth, fewer) & (np.abs(hand) > 0) & np.isfinite(hand)])
        several = telling.size > max(2, truth.size // 4) and np.unique(telling[:LISTED]).size > 2
        if several and _held(hand[np.isfinite(hand)], fewer).all():
            return max(specimen.tolerance, 4 * 2.0**-fewer * largest), name
    return specimen.tolerance, ""


def _held(x: np.ndarray, bits: int) -> np.ndarray:
    """Whether this many significant bits hold x."""
    held = [(y := np.ldexp(np.frexp(part)[0], bits)) == np.rint(y) for part in (np.real(x), np.imag(x))]
    return held[0] & held[1]


def _values(s: Specimen, truth: np.ndarray, hand: np.ndarray, tolerance: float) -> str:
    """What the numbers are, the shape being right."""
    fine = np.isfinite(truth)
    broken = fine & ~np.isfinite(hand)
    said = [_broken(s, hand, np.asarray(broken.any(0)))] if broken.any() else []
    if said and broken.all(0).all():
        return said[0]
    known = fine & ~broken
    e = Evidence(np.where(known, truth, 0), np.where(known, hand, 0), tolerance)
    return ", elsewhere ".join(filter(None, [*said, _numbers(s, e) if e.off.any() else ""]))


def _broken(s: Specimen, hand: np.ndarray, where: np.ndarray) -> str:
    what = "NaN" if np.isnan(hand).any() else "infinite"
    count = np.count_nonzero(where)
    if count == where.size:
        return f"{what} in every element" if count > 1 else what
    place = describe(Wrong(where, np.ones_like(where), sure=True), _finite(s.value), _batched(s))
    place = place.removeprefix("right but for ").removeprefix("elements ")
    return f"{what} in {count} of {where.size} elements" + (f" ({place})" if place else "")


def _numbers(s: Specimen, e: Evidence) -> str:
    if np.abs(e.h).max() <= e.tolerance:
        return "zero"
    if np.abs(e.g).max() <= e.tolerance:
        return "not zero, as it should be"
    if e.h.size == 1:  # one number tells nothing but a factor
        c = complex(e.h.item() / e.g.item())
        return factor(c, e.slack(e.g, c), s.sizes)
    c = e.proportional()
    if c is not None:
        return factor(c, e.slack(e.g, c), s.sizes)
    if e.g.size > LARGE and len(e.g) > 2:
        # The two draws that are most wrong say as much, sooner.
        worst = np.sort(np.argsort(np.abs(e.d).reshape(len(e.d), -1).max(1))[-2:])
        s = s._replace(dYs=[s.dYs[i] for i in worst], others={k: [v[i] for i in worst] for k, v in s.others.items()})
        e = Evidence(e.g[worst] * e.scale, e.h[worst] * e.scale, e.tolerance * e.scale)
    if e.g.size > HUGE:
        return right_but_for(e, _finite(s.value), _batched(s), s.sizes)
    return _best(s, e) or _parts(s, e) or _shared(s, e) or _rounding(s, e)


def _best(s: Specimen, e: Evidence) -> str:
    """One array instead of the gradient, as it is, or else scaled, or else a share of it; or an array added."""
    value, batch = _finite(s.value), _batched(s)
    others = [
        (f"the gradient of {name}", stack(t, None)) for name, t in s.others.items() if t[0].shape == e.g.shape[1:]
    ]
    others = [
        (words, t.astype(e.g.dtype) / e.scale) for words, t in others if np.iscomplexobj(e.g) or t.dtype.kind != "c"
    ]
    passed = [draw[i] for draw in s.dYs for i in range(len(draw)) if np.shape(draw[i]) == e.g.shape[1:]]
    dY = stack(passed, e.g.dtype) / e.scale if len(passed) == len(e.g) and e.g[0].size > 1 else None
    whole = [*others, *([("the cotangent itself", dY)] if dY is not None else [])]
    scaled = ""
    asked = cotangents.instead(e, s.one, s.dYs) if s.one and e.g.size <= LARGE and len(e.g) > 1 else ()
    for words, t in chain(whole, candidates.instead(e, value, batch), asked):
        c, share = e.instead(t)
        if c is not None:
            if abs(c - 1) <= e.bound(t, c):
                return words
            size = factor(c, e.slack(t, c), s.sizes)
            if e.g[0].size > 1:  # one element tells nothing but a factor
                scaled = scaled or f"{size} and {words}"
        elif share is not None and not scaled and e.g[0].size > 1:
            scaled = f"{words}, to a share of {share:.2g}"
    return scaled or _added(s, e, whole, value) or (candidates.permuted(e, batch) if e.g.size <= LARGE else "")


def _added(s: Specimen, e: Evidence, whole: list[tuple[str, np.ndarray]], value: np.ndarray | None) -> str:
    if e.added(a := np.ones_like(e.g)) is not None and (c := e.added(a)) is not None:
        offset = shortest(c.real * e.scale, e.tolerance * e.scale)
        return "off by a constant" + (f": {offset}" if abs(c.imag) <= e.tolerance else "")
    if value is not None and e.g[0].size > 1:
        a = np.broadcast_to(value / e.scale, e.g.shape).astype(e.g.dtype)
        if np.ptp(np.abs(a)) > 0 and (c := e.added(a)) is not None:
            return f"{shortest(c.real, e.slack(a, 1))} × the argument itself added (weight decay?)"
    for words, a in whole:
        if (c := e.added(a)) is not None:
            slack = e.slack(a, 1)
            times = "" if abs(abs(c) - 1) <= slack else f"{shortest(abs(c.real), slack)} × "
            return f"{times}{words} {'added' if c.real > 0 else 'missing'}"
    return ""


def _parts(s: Specimen, e: Evidence) -> str:
    """Right in parts, or right in parts but for a factor of the whole."""
    value, batch = _finite(s.value), _batched(s)
    if words := right_but_for(e, value, batch, s.sizes):
        return words
    # A leaf with the examples along its own axis was looked at above.
    if s.one and not batch and e.g.size <= LARGE:
        words = cotangents.examples(e, s.one, s.dYs, s.sizes)
        if words:
            return words
    seen = np.abs(e.g) > 10 * e.tolerance
    if np.count_nonzero(seen) > 4:
        ratio = float(np.median((e.h[seen] / e.g[seen]).real))
        near = seen & (np.abs(e.h - ratio * e.g) <= 1e-3 * abs(ratio) * np.abs(e.g))
        if ratio and near.any():
            g, h = e.g[near], e.h[near]
            for _ in range(2):  # the second time for the last digits
                ratio += float((inner(g, h - ratio * g) / inner(g, g)).real)
        fits = np.abs(e.h - ratio * e.g) <= e.tolerance * max(1.0, abs(ratio))
        if ratio and np.count_nonzero(fits & seen) > 0.5 * np.count_nonzero(seen):
            scaled = Evidence(e.g, e.h / ratio, e.tolerance * max(1.0, 1 / abs(ratio)))
            words = right_but_for(scaled, value, batch, s.sizes)
            size = factor(complex(ratio), e.slack(e.g, ratio), s.sizes)
            if words and size:
                return f"{size} and otherwise {words}"
    return ""


def _shared(s: Specimen, e: Evidence) -> str:
    """A share of something that keeps the length, as every other order does; or factors of its own."""
    gd = float(inner(e.g, e.d).real)
    if gd < 0 and e.g.size <= LARGE:
        share = float(inner(e.d, e.d).real) / (-2 * gd)
        if 0 < share < 0.5:
            rest = Evidence(e.g, e.g + e.d / share, 2 * e.tolerance / share)
            words = candidates.permuted(rest, _batched(s))
            if words and rest.tolerance < 1e-2:
                return f"{words}, to a share of {share:.2g}"
    return cotangents.ignored(e) or cotangents.own_factors(e, _batched(s))


def _rounding(s: Specimen, e: Evidence) -> str:
    """An error of the size of a lower precision's rounding, all over the leaf and of no other order."""
    bits = SIGNIFICANT_BITS.get(str(np.real(np.empty(0, s.dtype)).dtype), 0)
    if e.g.size < 8 or np.count_nonzero(e.off) < 0.5 * e.g.size:
        return ""
    error = norm(e.d) / norm(e.g)
    names = {53: ("float32",), 24: ("float16", "bfloat16")}.get(bits, ())
    near = [name for name in names if 0.2 < error * 2 ** SIGNIFICANT_BITS[name] < 1]
    return f"no more wrong than {near[0]}'s rounding makes it: computed in {near[0]} in part?" if near else ""


def _batched(s: Specimen) -> bool:
    return bool(s.truth[0].ndim) and s.truth[0].shape[0] == s.sizes.get("batch", 0) > 1


def _finite(value: Any) -> np.ndarray | None:
    value = wide(value)
    return value if np.isfinite(value).all() else None
