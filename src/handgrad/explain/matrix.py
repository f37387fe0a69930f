"""An array as it is shown: two-dimensional, and summarized where it is large."""

from typing import NamedTuple

import numpy as np

from handgrad.explain.worked import Index, Matrix

WHOLE = 64  # elements, up to which every one is shown
LONG = 16  # entries of a vector, up to which every one is shown
CORNER = 4  # rows and columns of a larger one
NOISE = 2.0**-48  # of the largest entry: below are the roundings of float64


class Shown(NamedTuple):
    """What is shown of an array.

    Attributes:
      shape: the array's own.
      rows: its entries, or a corner of them; axes but the last are flattened into rows, and a vector is a column.
      more_rows, more_columns: whether there are further ones.
      summary: (smallest, largest, mean) where only a corner is shown, otherwise None.
    """

    shape: tuple[int, ...]
    rows: np.ndarray
    more_rows: bool = False
    more_columns: bool = False
    summary: tuple[float, float, float] | None = None


def two_dimensional(array: Matrix) -> np.ndarray:
    """A vector as a column; tokens and space flattened into rows."""
    array = np.asarray(array)
    if array.dtype == bool:
        array = array.astype(int)
    if array.ndim == 1:
        return array[:, None]
    return array.reshape(-1, array.shape[-1]) if array.ndim and array.shape[-1] else array.reshape(1, -1)


def place_in_two(index: Index, shape: tuple[int, ...]) -> tuple[int, int]:
    """Where an entry of an array is in its two-dimensional form."""
    if len(index) < 2:
        return (index[0], 0) if index else (0, 0)
    *rows, column = index
    return (int(np.ravel_multi_index(rows, shape[:-1])) if rows else 0), int(column)


def shown(array: Matrix) -> Shown:
    """All entries of an array up to 64, of a vector up to 16; or a corner of it and three numbers about the whole."""
    whole = two_dimensional(array)
    shape = tuple(np.shape(array))
    is_whole = whole.size <= (LONG if len(shape) == 1 else WHOLE)
    count, width = whole.shape if is_whole else (min(CORNER, n) for n in whole.shape)
    summary = None
    if not is_whole:
        with np.errstate(invalid="ignore", over="ignore"):
            summary = float(whole.min()), float(whole.max()), float(whole.mean())
    return Shown(shape, whole[:count, :width], count < len(whole), width < whole.shape[1], summary)


def number(value: float, digits: int = 5) -> str:
    """A number with five significant digits."""
    return f"{value:.{digits}g}"


def numbers(rows: np.ndarray) -> list[list[str]]:
    """The entries of a matrix with as many decimals each: at least five significant digits in the largest and two in
    the smallest; zeros that all of them end in are left out. Where that takes too many, each has five digits."""
    rows = without_noise(rows) + 0  # no −0
    each = [[number(entry) for entry in row] for row in rows.tolist()]
    if rows.dtype.kind != "f" or not rows.size or not np.isfinite(rows).all():
        return each
    sizes = np.abs(rows[rows != 0])
    if not sizes.size or sizes.max() >= 1e5:
        return each
    most, least = (int(np.floor(np.log10(size))) for size in (sizes.max(), sizes.min()))
    decimals = max(0, 4 - most, 1 - least)
    if decimals + max(most, 0) > 8:
        return each
    while decimals and all(f"{entry:.{decimals}f}".endswith("0") for entry in rows.flat):
        decimals -= 1
    return [[f"{entry:.{decimals}f}" for entry in row] for row in rows.tolist()]


def without_noise(rows: np.ndarray) -> np.ndarray:
    """The rounding of sums that are zero as 0: what is too small beside the matrix's largest entry."""
    if rows.dtype.kind not in "fc" or not rows.size or not np.isfinite(rows).all():
        return rows
    return np.where(np.abs(rows) < NOISE * np.abs(rows).max(), 0, rows)


def shape_text(shape: tuple[int, ...]) -> str:
    """ "3 × 2"; a vector is a column, "2 × 1"; a number is nothing."""
    return " × ".join(map(str, shape if len(shape) != 1 else (*shape, 1)))


def about(of: Shown) -> str:
    """What a summary says of the whole: "from -1 to 1, mean 0"."""
    if of.summary is None:
        return ""
    low, high, mean = map(number, of.summary)
    return f"from {low} to {high}, mean {mean}"
