"""resize: every axis of space by a matrix of weights."""

import string
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_cotangent,
    check_flags,
    check_residuals,
    describe,
)
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules._outline import outline, outlined
from handgrad.rules.images._cells import Cells, sums
from handgrad.rules.images._windows import PerAxis, per_axis

__all__ = ["ResizeResiduals", "resize", "resize_backward", "resize_forward"]

Method = Literal["nearest", "linear", "cubic", "nearest-pytorch", "cubic-pytorch"]
METHODS = ("nearest", "linear", "cubic", "nearest-pytorch", "cubic-pytorch")


class ResizeResiduals(NamedTuple):
    """outline: X's shape and dtype, of no byte. Weights follow from sizes alone, and Y is linear in X."""

    outline: Float[Array, "batch 0 *space n"]


def resize_forward(
    X: Float[Array, "batch *space n"],
    *,
    size: PerAxis,
    method: Method = "linear",
    antialias: bool = True,
    align_corners: bool = False,
) -> tuple[Float[Array, "batch *size n"], ResizeResiduals]:
    """Y = R_h X R_wᵀ, feature by feature: R is (outputs, elements), and each of its rows sums to 1.

    Args:
      size: outputs along each axis of space, or an integer for all.
      method: "nearest", "linear" and "cubic" are jax.image.resize's ("nearest" is PyTorch's nearest-exact). PyTorch's
        own nearest and cubic are "nearest-pytorch" and "cubic-pytorch".
      antialias: where an axis shrinks, the kernel is stretched so that it sees every element, as in jax.image.resize;
        False is PyTorch's default. Without meaning for the nearest.
      align_corners: the first and the last elements' centers are those of Y; False aligns the margins.
    Derivation: docs/derivations/images/resize.md
    """
    where = "resize_forward"
    size = _check(where, X, size, method, align_corners)
    check_flags(where, antialias=antialias)
    Y = _resized(X.astype(accumulator(X)), size, method, antialias, align_corners, back=False)
    return Y.astype(X.dtype), ResizeResiduals(outline(X))


def resize_backward(
    residuals: ResizeResiduals,
    dY: Float[Array, "batch *size n"],
    *,
    size: PerAxis,
    method: Method = "linear",
    antialias: bool = True,
    align_corners: bool = False,
) -> tuple[Float[Array, "batch *space n"]]:
    """Pull dY back through Y = R_h X R_wᵀ.

        dX = R_hᵀ dY R_w

    Derivation: docs/derivations/images/resize.md
    """
    where = "resize_backward"
    X = outlined(*check_residuals(where, residuals, ResizeResiduals))
    size = _check(where, X, size, method, align_corners)
    check_cotangent(where, dY, (X.shape[0], *size, X.shape[-1]), X.dtype)
    space = X.shape[1:-1]
    return (_resized(dY.astype(accumulator(dY)), space, method, antialias, align_corners, back=True).astype(X.dtype),)


resize = Rule(resize_forward, resize_backward)


def _resized(
    A: Array, size: tuple[int, ...], method: Method, antialias: bool, align_corners: bool, back: bool
) -> Array:
    """R A along each axis of space, or Rᵀ A: first along the axis that shrinks the most, which makes the others cheap.
    Of an axis that keeps its size R is the identity."""
    for axis in sorted(range(1, A.ndim - 1), key=lambda axis: size[axis - 1] / A.shape[axis]):
        given, wanted = A.shape[axis], size[axis - 1]
        n, m = (wanted, given) if back else (given, wanted)
        if n == m:
            continue
        if method.startswith("nearest"):
            cells = nearest_cells(n, m, exact=method == "nearest")
            A = sums(A, axis, cells.transposed(n) if back else cells)
        else:
            R = weights(n, m, method, antialias, align_corners)
            A = _product(R.T if back else R, A, axis)
    return A


def _product(R: np.ndarray, A: Array, axis: int) -> Array:
    """R times A along an axis; no accelerator may round the factors to fewer digits."""
    letters = string.ascii_lowercase[: A.ndim]
    subscripts = f"Z{letters[axis]},{letters}->{letters.replace(letters[axis], 'Z')}"
    with jax.default_matmul_precision("highest"):
        return meshes.einsum(subscripts, jnp.asarray(R, A.dtype), A, A.dtype)


def nearest_cells(n: int, m: int, exact: bool) -> Cells:
    """The element that each output copies: the one around its center, or PyTorch's, around its first margin."""
    i = np.arange(m)
    j = (2 * i + 1) * n // (2 * m) if exact else i * n // m
    return Cells(j, j + 1)


def weights(n: int, m: int, method: Method, antialias: bool, align_corners: bool) -> np.ndarray:
    """R (m, n): the kernel around each output's place among the elements, of sum 1, in float64.

    At a margin the kernel is cut off and scaled up again; "cubic-pytorch" moves what is beyond to the last element.
    """
    i = np.arange(m)
    step = (n - 1) / max(m - 1, 1) if align_corners else n / m
    place = i * step if align_corners else (i + 0.5) * step - 0.5
    to_edge = method == "cubic-pytorch" and not antialias
    reach = 2 if to_edge else 0
    elements = np.arange(-reach, n + reach)
    kernel = _triangle if method == "linear" else _cubic(-0.75 if to_edge else -0.5)
    seen = kernel(np.abs(place[:, None] - elements) / (max(step, 1) if antialias else 1))
    R = np.zeros((m, n))
    np.add.at(R, (i[:, None], np.clip(elements, 0, n - 1)), seen)
    return R / R.sum(1, keepdims=True)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Keys's kernel (1981) of slope a at 1."""

    def kernel(x: np.ndarray) -> np.ndarray:
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return kernel


def _check(
    where: str, X: Array | jax.ShapeDtypeStruct, size: PerAxis, method: Method, align_corners: bool
) -> tuple[int, ...]:
    """Outputs along each axis of X's space."""
    check_array(where, "X", X)
    if len(X.shape) < 3 or 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have shape (batch, *space, n), space not empty, got {describe(X)}")
    check_choice(where, "method", method, METHODS)
    check_flags(where, align_corners=align_corners)
    if align_corners and method.startswith("nearest"):
        raise InputError(f"{where}: align_corners must be False with method {method!r}, got {align_corners!r}")
    return per_axis(where, "size", size, len(X.shape) - 2)
