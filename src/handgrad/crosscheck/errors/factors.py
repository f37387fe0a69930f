"""Errors that are a number: a factor, or a constant or another array added."""

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from handgrad.crosscheck.errors.error import Error, nothing, unrecognized
from handgrad.crosscheck.errors.fit import EXACT, VAGUE, Fit, Found
from handgrad.crosscheck.errors.gradient import Gradient, Made
from handgrad.crosscheck.errors.wording import factor, shortest, singular


def _times(of: Gradient, factors: Iterable[float]) -> Iterator[Made]:
    for c in factors:
        yield factor(c, 1e-12, of.sizes), c * of.g


def _by_batch(of: Gradient) -> Iterator[Made]:
    n = of.sizes.get("batch", 0)
    yield from _times(of, (n, 1 / n) if n > 1 else ())


def _by_axis(of: Gradient) -> Iterator[Made]:
    yield from _times(of, [1 / n for n in of.shape if n not in (1, of.sizes.get("batch"))])


def _multiple(fit: Fit) -> Iterator[Found]:
    """h = c g for any c, in the words for c."""
    if np.abs(fit.h).max() <= fit.tolerance:
        yield Found(EXACT, "zero")
    elif np.abs(fit.g).max() <= fit.tolerance:
        yield Found(EXACT, "nonzero, where the right gradient is zero")
    else:
        c = complex(fit.h.item() / fit.g.item()) if fit.h.size == 1 else fit.proportional()
        if c is not None:
            yield Found(EXACT, factor(c, fit.slack(fit.g, c), fit.of.sizes))


FACTORS = (
    Error("scale", lambda of: _times(of, (2, 0.5, 3, 10, 0.1, 1.01, -0.5)), _multiple),
    Error("sign", lambda of: _times(of, (-1,)), unrecognized),
    Error("dropped leaf", lambda of: _times(of, (0,)), unrecognized),
    Error("batch factor", _by_batch, unrecognized),
    Error("axis factor", _by_axis, unrecognized),
)


def _offset(of: Gradient) -> Iterator[Made]:
    for share in (1.0, 0.1):
        c = float(f"{share * (of.largest or 1.0):.2g}")
        yield f"off by a constant: {shortest(c, 0)}", of.g + c


def _is_offset(fit: Fit) -> Iterator[Found]:
    if (c := fit.added(np.full_like(fit.g, fit.scale))) is not None:
        size = shortest(c.real * fit.scale, fit.tolerance * fit.scale)
        yield Found(EXACT, "off by a constant" + (f": {size}" if abs(c.imag) <= fit.tolerance else ""))


def _argument(of: Gradient) -> Iterator[Made]:
    if (x := of.varied_x) is not None:
        c = float(f"{0.1 * (of.largest or 1.0) / np.abs(x).max():.3g}")
        yield f"{shortest(c, 0)} × the argument added (weight decay?)", of.g + c * x


def _is_argument(fit: Fit) -> Iterator[Found]:
    if (x := fit.of.varied_x) is not None and (c := fit.added(x)) is not None:
        slack = fit.slack(np.broadcast_to(x / fit.scale, fit.g.shape), 1)
        if abs(c.imag) <= slack:
            yield Found(EXACT, f"{shortest(c.real, slack)} × the argument added (weight decay?)")


def _another(of: Gradient) -> Iterator[Made]:
    yield from ((f"the gradient of {name}", G) for name, G in of.others.items())


def _cotangent(of: Gradient) -> Iterator[Made]:
    dYs = [dY for draw in of.dYs for dY in draw if np.shape(dY) == of.shape and (of.complex or dY.dtype.kind != "c")]
    if len(dYs) == len(of.g) and of.g[0].size > 1:
        yield "the cotangent itself", np.stack([dY.astype(of.g.dtype) for dY in dYs])


WHOLE = (Error("another leaf's", _another), Error("cotangent", _cotangent))


def _is_added(fit: Fit) -> Iterator[Found]:
    for words, a in chain(_another(fit.of), _cotangent(fit.of)):
        if (c := fit.added(a)) is not None:
            slack = fit.slack(a / fit.scale, 1)
            times = "" if abs(abs(c) - 1) <= slack else f"{shortest(abs(c.real), slack)} × "
            if abs(c.imag) <= slack:
                yield Found(EXACT, f"{times}{words} {'added' if c.real > 0 else 'missing'}")


ADDED = (
    Error("constant offset", _offset, _is_offset),
    Error("argument added", _argument, _is_argument),
    Error("term added", nothing, _is_added),
)


def _own_factors(fit: Fit) -> Iterator[Found]:
    """Each slice, or each element, is multiplied by another number, the same for every cotangent."""
    g, h = fit.g, fit.h
    axes = fit.of.long_axes if g.ndim > 2 else []
    for kept in [*((axis,) for axis in axes), tuple(range(1, g.ndim))] if g[0].size > 2 else ():
        over = tuple(axis for axis in range(g.ndim) if axis not in kept)
        gg = (np.abs(g) ** 2).sum(over, keepdims=True)
        c = (np.conj(g) * h).sum(over, keepdims=True) / np.where(gg > 0, gg, 1)
        seen = gg > (1e3 * fit.tolerance) ** 2
        if not fit.explained(h - c * g, fit.tolerance * np.maximum(1, np.abs(c)), c.size) or not seen.any():
            continue
        what = "element" if len(kept) > 1 or g.ndim == 2 else singular(kept[0] - 1, g.ndim - 1, bool(fit.of.batch))
        real = np.abs(c[seen].imag).max() <= 1e-6
        sizes = c[seen].real if real else np.abs(c[seen])
        low, high = f"{sizes.min():.3g}", f"{sizes.max():.3g}"
        by = f"{low} to {high}" if low != high else f"within {np.ptp(sizes):.2g} of {low}"
        if not real:
            by = f"of modulus {by}" if np.ptp(sizes) > 1e-3 else f"of modulus {low} (a conjugate missing?)"
        yield Found(VAGUE, f"each {what} multiplied by a different {'' if real else 'complex '}factor, {by}")
        return


DIFFERENT = (Error("own factors", nothing, _own_factors),)
