"""Errors of values: each element, or each sum, computed in another way."""

from collections.abc import Iterator

import numpy as np

from handgrad.crosscheck.errors.error import Error, along_axes, instead
from handgrad.crosscheck.errors.fit import SAMPLE, VAGUE, Fit, Found, norm
from handgrad.crosscheck.errors.forms import SIGNIFICANT_BITS, real_name
from handgrad.crosscheck.errors.gradient import Gradient, Made


def _complex(of: Gradient) -> bool:
    return of.complex


def _real(of: Gradient) -> bool:
    return not of.complex


def _argument(of: Gradient) -> bool:
    return of.varied_x is not None


COMPLEX = (
    instead("conjugate", "conjugate missing", lambda of: of.g.conj(), _complex),
    instead("real part alone", "the real part only", lambda of: np.real(of.g) + 0j, _complex),
    instead("imaginary part alone", "the imaginary part only", lambda of: 1j * np.imag(of.g), _complex),
    instead("parts exchanged", "real and imaginary part exchanged", lambda of: 1j * of.g.conj(), _complex),
)


def _clipped(of: Gradient, bound: float) -> Iterator[Made]:
    if of.complex:
        yield f"clipped to modulus {bound:.3g}", of.g * np.minimum(1, bound / np.where(of.size > 0, of.size, 1))
    else:
        high, low = bool((of.g > bound).any()), bool((of.g < -bound).any())
        side = f"to ±{bound:.3g}" if high == low else f"above {bound:.3g}" if high else f"below {-bound:.3g}"
        yield f"clipped {side}", np.clip(of.g, -bound, bound)


def _is_clipped(fit: Fit) -> Iterator[Found]:
    of, h, scale = fit.of, fit.h, fit.scale
    size = np.abs(h)
    bound, high, low = (float(x) for x in (size.max(), h.real.max(), h.real.min()))
    # Two numbers at least must be at a bound, or any largest number were one.
    if np.count_nonzero(size >= bound - fit.tolerance) > 1 or of.complex:
        yield from fit.instead(_clipped(of, bound * scale))
    if not of.complex and high > 0 and np.count_nonzero(h >= high - fit.tolerance) > 1:
        yield from fit.instead([(f"clipped above {high * scale:.3g}", np.minimum(of.g, high * scale))])
    if not of.complex and low < 0 and np.count_nonzero(h <= low + fit.tolerance) > 1:
        yield from fit.instead([(f"clipped below {low * scale:.3g}", np.maximum(of.g, low * scale))])


def _quantized(of: Gradient, step: float) -> Iterator[Made]:
    yield f"rounded to multiples of {step:.3g}", np.round(of.g / step) * step


def _is_quantized(fit: Fit) -> Iterator[Found]:
    steps = np.unique(fit.h.real.ravel()[:SAMPLE])
    step = float(np.diff(steps).min(initial=np.inf))
    if fit.tolerance < step < np.inf:
        step = float(np.ptp(steps) / np.round(np.ptp(steps) / step))
        yield from fit.instead(_quantized(fit.of, step * fit.scale))


VALUES = (
    instead("absolute value", "absolute value", lambda of: of.size + 0 * of.g),
    instead("negative part dropped", "negative elements set to zero", lambda of: np.maximum(of.g, 0), _real),
    instead("positive part dropped", "positive elements set to zero", lambda of: np.minimum(of.g, 0), _real),
    instead("sign alone", "its sign only, g / |g|", lambda of: of.g / np.where(of.size > 0, of.size, 1)),
    Error("clipped", lambda of: _clipped(of, of.largest / 2), _is_clipped),
    instead("squared", "squared", lambda of: of.g * of.g),
    Error("quantized", lambda of: _quantized(of, (of.largest or 1.0) / 16), _is_quantized),
    instead("times the argument", "multiplied by the argument", lambda of: of.g * of.x, _argument),
    instead(
        "over the argument",
        "divided by the argument",
        lambda of: of.g / of.x,
        lambda of: _argument(of) and bool(np.all(of.x)),
    ),
    instead(
        "mean removed",
        "mean subtracted",
        lambda of: of.g - of.g.mean(tuple(range(1, of.g.ndim)), keepdims=True),
        lambda of: len(of.long_axes) > 1,
    ),
)
REDUCED = (
    along_axes("axis summed", "summed over axis {axis} and repeated", lambda g, axis: g.sum(axis, keepdims=True)),
    along_axes("axis averaged", "averaged over axis {axis} and repeated", lambda g, axis: g.mean(axis, keepdims=True)),
    along_axes(
        "axis mean removed", "mean over axis {axis} subtracted", lambda g, axis: g - g.mean(axis, keepdims=True)
    ),
    along_axes("first for all", "index 0 of axis {axis} repeated", lambda g, axis: np.take(g, [0], axis)),
    along_axes("accumulated", "cumulative sum along axis {axis}", np.cumsum),
    along_axes(
        "accumulated from the end",
        "cumulative sum along axis {axis} from its end",
        lambda g, axis: np.flip(np.cumsum(np.flip(g, axis), axis), axis),
    ),
)


def _noise(of: Gradient) -> Iterator[Made]:
    noise = np.random.default_rng(0).standard_normal(of.g.shape)
    yield "noise of a tenth of the largest", of.g + 0.1 * of.largest * noise
    yield "each element × its own factor near 1", of.g * (1 + 0.1 * noise)


def _is_rounding(fit: Fit) -> Iterator[Found]:
    """An error of the size of a lower precision's rounding, all over the leaf and of no other pattern."""
    if fit.g.size < 8 or np.count_nonzero(fit.off) < 0.5 * fit.g.size:
        return
    error = norm(fit.d) / norm(fit.g)
    for name in {"float64": ("float32",), "float32": ("float16", "bfloat16")}.get(real_name(fit.of.dtype), ()):
        if 0.2 < error * 2 ** SIGNIFICANT_BITS[name] < 1:
            yield Found(VAGUE, f"an error of the size of {name}'s rounding: computed in {name} in part?")
            return


NOISE = (Error("noise", _noise, _is_rounding),)
