"""What a gradient is that doesn't have its argument's shape."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations

import numpy as np

from handgrad.crosscheck.errors.diagnosis.fits import wide
from handgrad.crosscheck.errors.diagnosis.wording import series

Arrays = Sequence[np.ndarray]


def other_shape(hand: Arrays, truth: Arrays, others: dict[str, list[np.ndarray]], tolerance: float) -> str:
    """ "misses the sum over axis 0 (broadcast): shape (5, 3) for (3,)"; where nothing fits, the two shapes.

    Args:
      hand, truth: one array for each draw, of two shapes.
      others: the truths of the other leaves, by name.
      tolerance: absolute.
    """
    if len({np.shape(array) for array in hand}) > 1:
        return "a shape that changes with the cotangent"
    came, due = np.shape(hand[0]), truth[0].shape
    return _explained([wide(array) for array in hand], truth, others, tolerance) + f"shape {came} for {due}"


def _explained(hand: Arrays, truth: Arrays, others: dict[str, list[np.ndarray]], tolerance: float) -> str:
    came, due = hand[0].shape, truth[0].shape

    def same(these: Arrays, those: Arrays) -> bool:
        return all(np.allclose(a, b, rtol=1e-12, atol=tolerance) for a, b in zip(these, those, strict=True))

    for name, truths in others.items():
        if truths[0].shape == came and same(hand, truths):
            return f"the gradient of {name}: "
    if came == due[::-1] and same([array.T for array in hand], truth):
        return "transposed: "
    for words, reduced in (("sum", np.sum), ("mean", np.mean)):
        for axes in _axes(came, due):
            if same([reduced(array, axis=axes).reshape(due) for array in hand], truth):
                return _over(came, axes, f"misses the {words}", " (broadcast)")
        for axes in _axes(due, came):
            if same(hand, [reduced(array, axis=axes).reshape(came) for array in truth]):
                return _over(due, axes, f"takes the {words}", "")
    if hand[0].size == truth[0].size:
        if same([array.reshape(due) for array in hand], truth):
            return "right but for its shape: "
        if same([np.sort(array, axis=None) for array in hand], [np.sort(array, axis=None) for array in truth]):
            return "the right numbers in another order: "
    return ""


def _over(shape: tuple[int, ...], axes: tuple[int, ...], start: str, end: str) -> str:
    if all(shape[axis] == 1 for axis in axes):
        return "right but for axes of length 1: "
    return f"{start} over {'axis' if len(axes) == 1 else 'axes'} {series([str(axis) for axis in axes])}{end}: "


def _axes(more: tuple[int, ...], fewer: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The axes of `more` whose sum has shape `fewer`, dropped or kept as 1."""
    everyone = range(len(more)) if len(more) <= 8 else ()
    for axes in chain.from_iterable(combinations(everyone, n) for n in range(1, len(more) + 1)):
        dropped = tuple(n for axis, n in enumerate(more) if axis not in axes)
        kept = tuple(1 if axis in axes else n for axis, n in enumerate(more))
        if fewer in (dropped, kept):
            yield axes
