"""grid_sample: an image read at any places, between its elements."""

import functools
import itertools
import math
import operator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from handgrad import meshes
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_cotangent,
    check_flags,
    check_residuals,
    check_shape,
    describe,
)
from handgrad.factors.base import as_tokens
from handgrad.rule import Rule
from handgrad.rules._wide import wide

__all__ = ["GridSampleResiduals", "grid_sample", "grid_sample_backward", "grid_sample_forward"]

Images = Float[Array, "batch *space n"]
Grid = Float[Array, "batch *places axes"]
Samples = Float[Array, "batch *places n"]


class GridSampleResiduals(NamedTuple):
    """X and grid, by reference: which elements a place lies between is found again, and read again for dgrid."""

    X: Images
    grid: Grid


class Corners(NamedTuple):
    """What each of P places reads of an image's N elements: 2^axes corners, or the nearest element alone.

    Attributes:
      element: which one the corner is, N for one outside of the image, which counts as 0.
      weight: of the corner; the weights of a place sum to 1.
      slope: of the weight, for each axis of space.
    """

    element: Int[Array, "batch corners P"]
    weight: Float[Array, "batch corners P"]
    slope: list[Float[Array, "batch corners P"]]


def grid_sample_forward(
    X: Images,
    grid: Grid,
    *,
    method: Literal["linear", "nearest"] = "linear",
    padding: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = False,
) -> tuple[Samples, GridSampleResiduals]:
    """y_p = Σ_c w_pc x_c over the corners c of the cell that place p lies in: in a plane (1 − β, β) C (1 − α, α)ᵀ.

    Args:
      grid: places, −1 to 1 along each axis, the LAST axis of space first, (x, y), as in PyTorch; beyond is outside.
      method: "linear" (bilinear, trilinear), or "nearest", of two alike the even one.
      padding: what is outside: "zeros"; "border", the image's last elements; or "reflection", the image again, mirrored
        at ±1, as often as a place is far away.
      align_corners: True puts ±1 at the centers of the first and last elements, False at the image's margins.
    Derivation: docs/derivations/images/grid_sample.md (Jaderberg et al. 2015)
    """
    _check("grid_sample_forward", X, grid, method, padding)
    check_flags("grid_sample_forward", align_corners=align_corners)
    Xw, places = wide(X, grid)
    corners = _corners(places, X.shape[1:-1], method, padding, align_corners)
    Y = jnp.sum(jnp.expand_dims(corners.weight, -1) * _read(Xw, corners.element), axis=1)
    shape = (*grid.shape[:-1], X.shape[-1])
    return Y.reshape(shape).astype(jnp.result_type(X, grid)), GridSampleResiduals(X, grid)


def grid_sample_backward(
    residuals: GridSampleResiduals,
    dY: Samples,
    *,
    method: Literal["linear", "nearest"] = "linear",
    padding: Literal["zeros", "border", "reflection"] = "zeros",
    align_corners: bool = False,
) -> tuple[Images, Grid]:
    """Pull dY back through y_p = Σ_c w_pc x_c.

        dx_j = Σ w_pc dy_p over the corners c that are x_j        dgrid_p = Σ_c ∂w_pc/∂grid_p ⟨x_c, dy_p⟩

    At an element's center, where two cells meet, the slope is that of the cell behind it. At the border and beyond it
    is 0, also where a place is reflected; of the nearest it is 0 everywhere. All as in PyTorch.

    Derivation: docs/derivations/images/grid_sample.md
    """
    X, grid = check_residuals("grid_sample_backward", residuals, GridSampleResiduals)
    shape = (*grid.shape[:-1], X.shape[-1])
    check_cotangent("grid_sample_backward", dY, shape, jnp.result_type(X, grid))
    Xw, places, dYw = wide(X, grid, dY)
    index, weight, slope = _corners(places, X.shape[1:-1], method, padding, align_corners)
    dYw = jnp.expand_dims(as_tokens(dYw), 1)
    dX = _add_up(jnp.expand_dims(weight, -1) * dYw, index, math.prod(X.shape[1:-1])).reshape(X.shape)
    if method == "nearest":
        return dX.astype(X.dtype), jnp.zeros_like(grid)
    inner = jnp.sum(_read(Xw, index) * dYw, -1)
    dgrid = jnp.stack([jnp.sum(of_axis * inner, 1) for of_axis in reversed(slope)], -1)
    return dX.astype(X.dtype), dgrid.reshape(grid.shape).astype(grid.dtype)


grid_sample = Rule(grid_sample_forward, grid_sample_backward)


def _corners(grid: Grid, space: tuple[int, ...], method: str, padding: str, align_corners: bool) -> Corners:
    """Corners of every place, weights and slopes by the product rule."""
    rows = as_tokens(grid)
    axes = [
        _along_axis(rows[..., len(space) - 1 - axis], n, method, padding, align_corners) for axis, n in enumerate(space)
    ]
    indices, weights, slopes = [], [], [list[Array]() for _ in space]
    for corner in itertools.product(*axes):
        index, inside = jnp.zeros_like(corner[0][0]), []
        for (of_axis, _, _), n in zip(corner, space, strict=True):
            index = index * n + of_axis
            inside.append((of_axis >= 0) & (of_axis < n))
        indices.append(jnp.where(functools.reduce(operator.and_, inside), index, math.prod(space)))
        shares = [share for _, share, _ in corner]
        weights.append(math.prod(shares[1:], start=shares[0]))
        for axis, (_, _, slope) in enumerate(corner):
            slopes[axis].append(math.prod(shares[:axis] + shares[axis + 1 :], start=slope))
    return Corners(jnp.stack(indices, 1), jnp.stack(weights, 1), [jnp.stack(of_axis, 1) for of_axis in slopes])


def _along_axis(
    g: Float[Array, "batch P"], n: int, method: str, padding: str, align_corners: bool
) -> list[tuple[Int[Array, "batch P"], Float[Array, "batch P"], Float[Array, "batch P"]]]:
    """(element, its share, the share's slope by g) of the two elements around each place, or of the nearest."""
    scale = (n - 1) / 2 if align_corners else n / 2
    g, turn = _folded(g) if padding == "reflection" else (g, jnp.ones_like(g))
    place, slope = g * scale + (n - 1) / 2, scale * turn
    if padding == "zeros":  # so far outside that nothing is read, and within the range of integers
        place = jnp.clip(place, -2, n + 1)
    else:
        slope = jnp.where((place > 0) & (place < n - 1), slope, 0)
        place = jnp.where(place <= 0, 0, jnp.where(place >= n - 1, n - 1, place))
    if method == "nearest":
        return [(jnp.round(place).astype(jnp.int32), jnp.ones_like(g), jnp.zeros_like(g))]
    left = jnp.floor(place)
    share, element = place - left, left.astype(jnp.int32)
    return [(element, 1 - share, -slope), (element + 1, share, slope)]


def _folded(g: Float[Array, "batch P"]) -> tuple[Float[Array, "batch P"], Float[Array, "batch P"]]:
    """Places reflected at −1 and at 1 until they are between, and the slope, 1 or −1."""
    away = jnp.fmod(jnp.abs(g + 1), 4)
    back = away > 2
    return jnp.where(back, 4 - away, away) - 1, jnp.where(back == (g < -1), 1, -1).astype(g.dtype)


def _read(X: Images, index: Int[Array, "batch corners P"]) -> Float[Array, "batch corners P n"]:
    """The elements with these indices, 0 for one outside."""

    def read(X: Array, index: Array) -> Array:
        rows, flat = as_tokens(X), index.reshape(index.shape[0], math.prod(index.shape[1:]), 1)
        return jnp.take_along_axis(rows, flat, 1, mode="fill", fill_value=0).reshape(*index.shape, X.shape[-1])

    return meshes.along_batch(read, X, index)


def _add_up(shares: Array, index: Int[Array, "batch corners P"], elements: int) -> Float[Array, "batch elements n"]:
    """Each example's segment sum: the transpose of `_read`."""

    def add(shares: Array, index: Array) -> Array:
        zeros = jnp.zeros((elements, shares.shape[-1]), shares.dtype)
        return jax.vmap(lambda share, i: zeros.at[i].add(share, mode="drop"))(shares, index)

    return meshes.along_batch(add, shares, index)


def _check(where: str, X: Array, grid: Array, method: str, padding: str) -> None:
    check_array(where, "X", X)
    axes = len(X.shape) - 2
    if axes < 1 or 0 in X.shape[1:-1]:
        raise InputError(f"{where}: X must have shape (batch, *space, n), space not empty, got {describe(X)}")
    check_array(where, "grid", grid, min_ndim=2)
    check_shape(where, "grid", grid, (X.shape[0], *grid.shape[1:-1], axes), f"to meet X {tuple(X.shape)}")
    check_choice(where, "method", method, ("linear", "nearest"))
    check_choice(where, "padding", padding, ("zeros", "border", "reflection"))
