"""Products of patches: P Pᵀ, of which P need not be written out."""

import math
from collections.abc import Sequence
from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.factors.base import accumulator, as_tokens
from handgrad.factors.windows import Window, at_tap, padded

# A sum of two arrays is bound by memory: for each element it takes as long as this many operations of a product.
ELEMENTWISE = 32


def by_groups(A: Float[Array, "batch *space n"], groups: int) -> Float[Array, "batch tokens groups n//{groups}"]:
    """Each group's features apart, and space as tokens."""
    A = as_tokens(A)
    return A.reshape(*A.shape[:2], groups, A.shape[-1] // groups)


def patches_of_groups(
    X: Float[Array, "batch *space n"], window: Window
) -> Float[Array, "batch taps groups n//{window.groups} outputs"]:
    """What each window sees (im2col), outputs last: a tap is copied in rows of X, however few its features."""
    outputs, X = window.outputs(X.shape[1:-1]), jnp.moveaxis(padded(X, window, 0), -1, 1)
    P = jnp.stack([X[:, :, *at_tap(window, tap, outputs)] for tap in window.taps()], axis=1)
    return P.reshape(*P.shape[:2], window.groups, X.shape[1] // window.groups, math.prod(outputs))


def across(A: Float[Array, "batch *space n"], B: Float[Array, "batch *others n"], groups: int) -> Array:
    """A Bᵀ, of tokens, for each example and group: (batch, groups, *space, *others)."""
    sides = by_groups(A, groups), by_groups(B, groups)
    products = jnp.einsum("btgi,bsgi->bgts", *sides, preferred_element_type=accumulator(A, B))
    return products.reshape(A.shape[0], groups, *A.shape[1:-1], *B.shape[1:-1])


def across_patches(X: Array, window: Window, X2: Array, window2: Window) -> Array:
    """P P′ᵀ for each example and group: (batch, groups, *outputs, *outputs2).

    (P P′ᵀ)_ij = Σ_t x_{s i + d t − p} x′_{s′ j + d′ t − p′}ᵀ has no inner product that isn't in X X′ᵀ: it is a sum of
    slices of that, one for each tap.
    """
    outputs, outputs2 = window.outputs(X.shape[1:-1]), window2.outputs(X2.shape[1:-1])
    if are_patches_cheaper(X, window, X2, window2):
        P, P2 = patches_of_groups(X, window), patches_of_groups(X2, window2)
        products = jnp.einsum("bkgit,bkgis->bgts", P, P2, preferred_element_type=accumulator(X, X2))
        return products.reshape(X.shape[0], window.groups, *outputs, *outputs2)
    of_elements = across(padded(X, window, 0), padded(X2, window2, 0), window.groups)
    taps = zip(window.taps(), window2.taps(), strict=True)
    slices = ((*at_tap(window, tap, outputs), *at_tap(window2, tap2, outputs2)) for tap, tap2 in taps)
    return reduce(jnp.add, (of_elements[:, :, *of_tap] for of_tap in slices))


def are_patches_cheaper(X: Array, window: Window, X2: Array, window2: Window) -> bool:
    """Whether P P′ᵀ takes fewer operations as a product of patches than from X X′ᵀ."""
    from_patches, from_elements = across_flops(X, window, X2, window2)
    return from_patches <= from_elements


def across_flops(X: Array, window: Window, X2: Array, window2: Window) -> tuple[int, int]:
    """What P P′ᵀ costs, of all groups: from the patches, and from X X′ᵀ."""
    T, covered = _sizes(X.shape[1:-1], window)
    S, covered2 = _sizes(X2.shape[1:-1], window2)
    taps = math.prod(window.size)
    from_elements = 2 * covered * covered2 * X.shape[-1] + ELEMENTWISE * taps * T * S * window.groups
    return 2 * T * S * taps * X.shape[-1], from_elements


def gram_size(X: Array, window: Window) -> int:
    """Numbers that P Pᵀ of one example takes: itself, and the patches or X Xᵀ."""
    T, covered = _sizes(X.shape[1:-1], window)
    beside = T * math.prod(window.size) * X.shape[-1]
    return T * T * window.groups + (beside if are_patches_cheaper(X, window, X, window) else covered**2 * window.groups)


def _sizes(space: Sequence[int], window: Window) -> tuple[int, int]:
    """Outputs, and the elements from the first window's to the last one's."""
    outputs = window.outputs(space)
    return math.prod(outputs), math.prod(window.covered(outputs))
