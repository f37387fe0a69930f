"""Errors of form: another shape or dtype, a lower precision, numbers that are not finite."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations

import numpy as np

from handgrad.crosscheck.errors.error import Error, unrecognized
from handgrad.crosscheck.errors.fit import Wrong
from handgrad.crosscheck.errors.gradient import Arrays, Gradient, Made, wide
from handgrad.crosscheck.errors.places import describe
from handgrad.crosscheck.errors.regions import at
from handgrad.crosscheck.errors.wording import series

LISTED = 1000  # numbers looked at for how many different ones there are
SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
NARROWER = {"float64": "float32", "complex128": "complex64", "float32": "float16"}


def _lower_precision(of: Gradient) -> Iterator[Made]:
    if narrow := NARROWER.get(of.dtype.name):
        name = real_name(np.dtype(narrow))
        yield f"computed in {name} instead of {of.dtype}", wide(of.g.astype(narrow))


def _dtype(of: Gradient) -> Iterator[Made]:
    if narrow := NARROWER.get(of.dtype.name):
        yield f"dtype {narrow} instead of {of.dtype}", of.g.astype(narrow)


def _broken(of: Gradient, value: float) -> Iterator[Made]:
    M = np.where(at(of.shape, of.top), of.g + value, of.g)
    yield not_finite(of, M, ~np.isfinite(M) & np.isfinite(of.g)), M


def not_finite(of: Gradient, hand: np.ndarray, broken: np.ndarray) -> str:
    """ "NaN in 2 of 12 elements (where x == 0)": where a gradient under test isn't finite and the right one is."""
    nan, region = np.isnan(hand[broken]), np.asarray(broken.any(0))
    what = "NaN" if nan.all() else "NaN or infinite" if nan.any() else "infinite"
    count = np.count_nonzero(region)
    if count == region.size:
        return f"{what} in every element" if count > 1 else what
    place = describe(Wrong(region, np.ones_like(region), "", sure=True, partly=True), of)
    place = place.removeprefix("right but for ").removeprefix("wrong for ").removeprefix("elements ")
    return f"{what} in {count} of {region.size} elements" + (f" ({place})" if place else "")


def _missing_sum(of: Gradient) -> Iterator[Made]:
    n = of.sizes.get("batch", 0)
    if n > 1 and of.shape[:1] != (n,):
        M = np.broadcast_to(of.g[:, None] / n, (len(of.g), n, *of.shape))
        yield f"misses the sum over axis 0 (broadcast): {_shapes((n, *of.shape), of.shape)}", M


FORMS = (
    Error("NaN", lambda of: _broken(of, np.nan), unrecognized),
    Error("infinity", lambda of: _broken(of, np.inf), unrecognized),
    Error("rounded", _lower_precision, unrecognized),
    Error("dtype", _dtype, unrecognized),
    Error("missing broadcast reduction", _missing_sum, unrecognized),
)


def real_name(dtype: np.dtype) -> str:
    """The name of its real numbers' dtype."""
    return str(np.real(np.empty(0, dtype)).dtype)


def precision(truth: np.ndarray, hand: np.ndarray, dtype: np.dtype, tolerance: float) -> tuple[float, str]:
    """The tolerance for numbers rounded to a lower precision than the leaf's, and its name; else the tolerance, ""."""
    bits = SIGNIFICANT_BITS.get(real_name(dtype), 0)
    largest = float(np.max(np.abs(truth[np.isfinite(truth)]), initial=0.0))
    some = hand.ravel()[:LISTED][np.isfinite(hand.ravel()[:LISTED])]
    for name, fewer in SIGNIFICANT_BITS.items():
        # Numbers that the lower precision doesn't hold by themselves.
        if fewer >= bits or not _held(some, fewer).all():
            continue
        sure = (np.abs(truth) > tolerance) & ~_held(truth, fewer) & (np.abs(hand) > tolerance) & np.isfinite(hand)
        telling = np.abs(hand[sure])
        several = telling.size > max(2, np.count_nonzero(truth) // 4) and np.unique(telling[:LISTED]).size > 2
        if several and _held(hand[np.isfinite(hand)], fewer).all():
            return max(tolerance, 4 * 2.0**-fewer * largest), name
    return tolerance, ""


def _held(x: np.ndarray, bits: int) -> np.ndarray:
    """Whether this many significant bits hold x."""
    held = [(y := np.ldexp(np.frexp(part)[0], bits)) == np.rint(y) for part in (np.real(x), np.imag(x))]
    return held[0] & held[1]


def _shapes(came: tuple[int, ...], due: tuple[int, ...]) -> str:
    return f"shape {came} instead of {due}"


def other_shape(hand: Arrays, truth: Arrays, others: Mapping[str, Arrays], tolerance: float) -> str:
    """ "misses the sum over axis 0 (broadcast): shape (5, 3) instead of (3,)"; where nothing fits, the two shapes.

    Args:
      hand, truth: one array for each draw, of two shapes.
      others: the right gradients of the other leaves, by name.
      tolerance: absolute.
    """
    if len({np.shape(array) for array in hand}) > 1:
        return "a shape that depends on the cotangent"
    words = _reshaped([wide(array) for array in hand], truth, others, tolerance)
    return ": ".join(filter(None, [words, _shapes(np.shape(hand[0]), truth[0].shape)]))


def _reshaped(hand: Arrays, truth: Arrays, others: Mapping[str, Arrays], tolerance: float) -> str:
    came, due = hand[0].shape, truth[0].shape

    def same(these: Sequence[np.ndarray], those: Sequence[np.ndarray]) -> bool:
        return all(np.allclose(a, b, rtol=1e-12, atol=tolerance) for a, b in zip(these, those, strict=True))

    for name, truths in others.items():
        if truths[0].shape == came and same(hand, truths):
            return f"the gradient of {name}"
    if came == due[::-1] and same([array.T for array in hand], truth):
        return "transposed"
    for words, reduced in (("sum", np.sum), ("mean", np.mean)):
        for axes in _axes(came, due):
            if same([reduced(array, axis=axes).reshape(due) for array in hand], truth):
                return _over(came, axes, f"misses the {words}", " (broadcast)")
        for axes in _axes(due, came):
            if same(hand, [reduced(array, axis=axes).reshape(came) for array in truth]):
                return _over(due, axes, f"takes the {words}", "")
    if hand[0].size == truth[0].size:
        if same([array.reshape(due) for array in hand], truth):
            return "right but for its shape"
        if same([np.sort(array, axis=None) for array in hand], [np.sort(array, axis=None) for array in truth]):
            return "the right numbers in another order"
    return ""


def _over(shape: tuple[int, ...], axes: tuple[int, ...], start: str, end: str) -> str:
    if all(shape[axis] == 1 for axis in axes):
        return "right but for axes of length 1"
    return f"{start} over {'axis' if len(axes) == 1 else 'axes'} {series([str(axis) for axis in axes])}{end}"


def _axes(more: tuple[int, ...], fewer: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The axes of `more` whose sum has shape `fewer`, dropped or kept as 1."""
    everyone = range(len(more)) if len(more) <= 8 else ()
    for axes in chain.from_iterable(combinations(everyone, n) for n in range(1, len(more) + 1)):
        dropped = tuple(n for axis, n in enumerate(more) if axis not in axes)
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(more))
        if fewer in (dropped, kept):
            yield axes
