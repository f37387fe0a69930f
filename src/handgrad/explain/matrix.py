"""An array as it is shown: two-dimensional, and summarized where it is large."""

from typing import NamedTuple

import numpy as np

from handgrad.explain.worked import Index, Matrix

WHOLE = 64  # elements, up to which every one is shown
CORNER = 4  # rows and columns of a larger one


class Shown(NamedTuple):
    """What is shown of an array.

    Attributes:
      shape: the array's own.
      rows: its entries, or a corner of them; axes but the last are flattened into rows, and a vector is one row.
      more_rows, more_columns: whether there are further ones.
      summary: (smallest, largest, mean) where only a corner is shown, otherwise None.
    """

    shape: tuple[int, ...]
    rows: np.ndarray
    more_rows: bool = False
    more_columns: bool = False
    summary: tuple[float, float, float] | None = None


def two_dimensional(array: Matrix) -> np.ndarray:
    """A vector as one row; tokens and space flattened into rows."""
    array = np.asarray(array)
    if array.dtype == bool:
        array = array.astype(int)
    return array.reshape(-1, array.shape[-1]) if array.ndim and array.shape[-1] else array.reshape(1, -1)


def place_in_two(index: Index, shape: tuple[int, ...]) -> tuple[int, int]:
    """Where an entry of an array is in its two-dimensional form."""
    if not index:
        return 0, 0
    *rows, column = index
    return (int(np.ravel_multi_index(rows, shape[:-1])) if rows else 0), int(column)


def shown(array: Matrix, columns: int | None = None) -> Shown:
    """All entries of an array up to 64, or a corner of it and three numbers about the whole.

    Args:
      columns: how many are shown at most; None is all.
    """
    whole = two_dimensional(array)
    shape = tuple(np.shape(array))
    count = len(whole) if whole.size <= WHOLE else min(CORNER, len(whole))
    width = whole.shape[1] if whole.size <= WHOLE else min(CORNER, whole.shape[1])
    width = width if columns is None else max(1, min(width, columns))
    summary = None
    if whole.size > WHOLE:
        with np.errstate(invalid="ignore", over="ignore"):
            summary = float(whole.min()), float(whole.max()), float(whole.mean())
    return Shown(shape, whole[:count, :width], count < len(whole), width < whole.shape[1], summary)


def number(value: float, digits: int = 5) -> str:
    """A number with five significant digits."""
    return f"{value:.{digits}g}"


def numbers(rows: np.ndarray) -> list[list[str]]:
    """The entries of a matrix with as many decimals each, five significant digits in the largest; zeros that all of
    them end in are left out. Where an entry would lose its digits, each has five of its own."""
    rows = rows + 0  # no −0
    each = [[number(entry) for entry in row] for row in rows.tolist()]
    if rows.dtype.kind != "f" or not rows.size or not np.isfinite(rows).all():
        return each
    sizes = np.abs(rows[rows != 0])
    if not sizes.size or sizes.max() >= 1e5 or sizes.min() < 1e-3 * sizes.max() or sizes.max() < 1e-4:
        return each
    decimals = max(0, 4 - int(np.floor(np.log10(sizes.max()))))
    while decimals and all(f"{entry:.{decimals}f}".endswith("0") for entry in rows.flat):
        decimals -= 1
    return [[f"{entry:.{decimals}f}" for entry in row] for row in rows.tolist()]


def shape_text(shape: tuple[int, ...]) -> str:
    """ "3 × 2"; a vector as "2", a number as nothing."""
    return " × ".join(map(str, shape))


def about(of: Shown) -> str:
    """What a summary says of the whole: "from -1 to 1, mean 0"."""
    if of.summary is None:
        return ""
    low, high, mean = map(number, of.summary)
    return f"from {low} to {high}, mean {mean}"
