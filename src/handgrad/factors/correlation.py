"""Correlation: the gradient of every convolution's kernel, Σ_b X_b ⋆ Δ_b."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from handgrad import meshes
from handgrad.checks import check_shape
from handgrad.factors.base import (
    Factor,
    Gradient,
    Gradients,
    Mask,
    Numbers,
    Weights,
    accumulator,
    combined_mask,
    weighted,
)
from handgrad.factors.costs import Cost
from handgrad.factors.outer import Outer
from handgrad.factors.patches import across, across_flops, across_patches, by_groups, gram_size, patches_of_groups
from handgrad.factors.windows import Window, features_of_groups, is_cheaper_by_shifts, of_tap, padded, patches

FEW_FEATURES = 2  # on both sides: for so few, a convolution over the batch takes up to five times as long


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Correlation(Factor):
    """g_b = X_b ⋆ Δ_b: at each tap, Σ_i x δᵀ over the outputs i, x being the input of output i at that tap.

    With P_b the patches (im2col), one row for each output, it is P_bᵀ Δ_b: an Outer whose left side is not
    materialized. It has the kernel's shape, (*size, n_in / groups, n_out); each group of n_out / groups features is
    multiplied with its own n_in / groups.

    Attributes:
      X: what the window slid over.
      Delta: cotangent of the products.
      window: size, strides, padding, dilation and groups.
      mask: which outputs count, as for Outer; None stands for all.
    Derivation: docs/derivations/images/convolution.md
    """

    X: Float[Array, " batch *space n_in"]
    Delta: Float[Array, " batch *outputs n_out"]
    window: Window = field(metadata={"static": True})
    param_dtype: DTypeLike | None = field(default=None, metadata={"static": True})
    mask: Mask | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.window.size, self.X.shape[-1] // self.window.groups, self.Delta.shape[-1])

    def accumulate(self, weights: Weights = None) -> Gradient:
        """Σ_b w_b X_b ⋆ Δ_b: ONE convolution, the examples its features, Δ its kernel.

        Strides and dilation exchange roles: taps are d apart, and the inputs of one tap are s apart. Both sides are
        transposed to features last, the one layout that XLA compiles well on CPU inside a branch or a loop. A group of
        these features is the batch, of one group of X.
        """
        self._check_sides()
        window, axes = self.window, len(self.window.size)
        if window.is_pointwise:
            seen = of_tap(padded(self.X, window, 0), window, (0,) * axes, self.Delta.shape[1:-1])
            return Outer(seen, self.Delta).accumulate(weights).reshape(self.shape)
        if self._is_by_shifts():
            return jnp.sum(weighted(self.per_example(), weights), axis=0)
        Delta = weighted(self.Delta, weights)
        dtype = jnp.result_type(self.X, Delta)
        space, n_in = self.X.shape[1:-1], self.X.shape[-1] // window.groups
        if window.groups > 1 and meshes.places(self.X, self.batch) > 1:
            return self._tap_by_tap(Delta)
        of_sides, of_kernel = (0, axes + 1, *range(1, axes + 1)), (axes + 1, axes, *range(axes))
        convolve = partial(
            jax.lax.conv_general_dilated,
            window_strides=window.dilation,
            padding=window.padding_met(space),
            rhs_dilation=window.strides,
            dimension_numbers=jax.lax.ConvDimensionNumbers(of_sides, of_kernel, of_sides),
            feature_group_count=window.groups,
            preferred_element_type=accumulator(dtype),
        )

        def product(X: Array, Delta: Array) -> Array:
            X = X.reshape(self.batch, *space, window.groups, n_in)
            X = X.transpose(axes + 2, *range(1, axes + 2), 0).reshape(n_in, *space, window.groups * self.batch)
            return jnp.moveaxis(convolve(X, jnp.moveaxis(Delta, 0, -2)), 0, -2)

        of_taps = [*(None for _ in range(axes + 1)), meshes.spec(Delta)[-1]]
        return meshes.along(of_taps, product, self.X.astype(dtype), Delta.astype(dtype))

    def _tap_by_tap(self, Delta: Array) -> Array:
        """One product for each tap: where the batch, which would be among the features of a group, may be sharded."""
        dtype, outputs, groups = accumulator(self.X, Delta), Delta.shape[1:-1], self.window.groups

        def by_group(A: Array) -> Array:
            return by_groups(A, groups)

        def product(x: Array) -> Array:
            return meshes.einsum("btgi,btgo->igo", x, Delta, dtype)

        X, Delta = padded(self.X, self.window, 0), meshes.along_batch(by_group, Delta)
        taps = (meshes.along_batch(by_group, of_tap(X, self.window, tap, outputs)) for tap in self.window.taps())
        return jnp.stack(list(map(product, taps))).reshape(self.shape)

    def _is_by_shifts(self) -> bool:
        """Whether dK, too, is cheaper as shifted products: where there are groups, or hardly any features."""
        _, _, n_out = _sizes(self)
        few = self.window.groups > 1 or max(self.shape[-2], n_out) <= FEW_FEATURES
        return few and is_cheaper_by_shifts(self.window, self.shape[-2], n_out)

    def _by_shifts(self) -> Gradients:
        """For each tap and each input feature of a group, the sum over the outputs of a product of X, shifted, and Δ:
        all of them in one loop, which reads both once."""
        window, outputs, dtype = self.window, self.Delta.shape[1:-1], accumulator(self.X, self.Delta)

        def add(one: Sequence[Array], other: Sequence[Array]) -> tuple[Array, ...]:
            return tuple(map(jnp.add, one, other))

        def sums(X: Array, Delta: Array) -> Array:
            X = padded(X, window, 0)
            seen = (of_tap(X, window, tap, outputs) for tap in window.taps())
            products = [x * Delta for x_t in seen for x in features_of_groups(x_t, window.groups, Delta.shape[-1])]
            zeros, space = [jnp.zeros((), dtype)] * len(products), range(1, Delta.ndim - 1)
            return jnp.stack(jax.lax.reduce(products, zeros, add, list(space)), axis=1)

        g = meshes.along_batch(sums, self.X.astype(dtype), self.Delta.astype(dtype))
        return g.reshape(self.batch, *self.shape)

    def per_example(self) -> Gradients:
        self._check_sides()
        if self._is_by_shifts():
            return self._by_shifts()

        groups, dtype = self.window.groups, accumulator(self.X, self.Delta)

        def products(X: Array, Delta: Array) -> Array:
            P, Delta = patches_of_groups(X, self.window), by_groups(Delta, groups)
            g = jnp.einsum("bkgit,btgo->bkigo", P, Delta, preferred_element_type=dtype)
            return g.reshape(X.shape[0], *self.shape)

        return meshes.along_batch(products, self.X, self.Delta)

    def norm_methods(self) -> dict[str, Cost]:
        """gram: ⟨P Pᵀ, Δ Δᵀ⟩ of the patches; direct: PᵀΔ materialized. As for Outer, group by group."""
        T, n_in, n_out = _sizes(self)
        groups, itemsize = self.window.groups, accumulator(self.X, self.Delta).itemsize
        return {
            "gram": Cost(_gram_flops(self, self), (gram_size(self.X, self.window) + T * T * groups) * itemsize),
            "direct": Cost(2 * T * n_in * n_out * groups, n_in * (T + n_out) * groups * itemsize),
        }

    def by_token(self) -> "Correlation":
        """Every output as an example: its patch is the space of a window with a single position."""
        self._check_sides()
        P, size = patches(self.X, self.window), self.window.size
        P = P.reshape(math.prod(P.shape[:-2]), *size, P.shape[-1])
        Delta = self.Delta.reshape(len(P), *(1 for _ in size), self.Delta.shape[-1])
        one = tuple(1 for _ in size)
        window = Window(size, one, tuple((0, 0) for _ in size), one, self.window.groups)
        mask = None if self.mask is None else self.mask.reshape(Delta.shape[:-1])
        return Correlation(P, Delta, window, self.param_dtype, mask)

    def with_mask(self, mask: Mask) -> "Correlation":
        return replace(self, mask=combined_mask(self.mask, mask, self.Delta.shape[:-1]))

    def _sq_norms(self, method: str) -> Numbers:
        return jnp.maximum(_gram(self, self), 0) if method == "gram" else self._materialized_inner(self)

    def _inner(self, other: Factor) -> Numbers:
        """⟨PᵀΔ, P′ᵀΔ′⟩ = ⟨P P′ᵀ, Δ Δ′ᵀ⟩, over pairs of outputs, where that is cheaper than materializing both."""
        if isinstance(other, Correlation) and _gram_is_cheaper(self, other):
            return _gram(self, other)
        return super()._inner(other)

    def _check_sides(self) -> None:
        """Both sides belong to the same examples and outputs: nothing is broadcast."""
        outputs = self.window.outputs(self.X.shape[1:-1])
        shape = (self.batch, *outputs, self.Delta.shape[-1])
        check_shape("Correlation", "Delta", self.Delta, shape, "(X's examples and the window's outputs)")


def _sizes(factor: Correlation) -> tuple[int, int, int]:
    """Outputs, and the two sides of one group's gradient: (T, taps × n_in / groups, n_out / groups)."""
    *size_and_in, n_out = factor.shape
    return math.prod(factor.Delta.shape[1:-1]), math.prod(size_and_in), n_out // factor.window.groups


def _gram(one: Correlation, two: Correlation) -> Numbers:
    """⟨P P′ᵀ, Δ Δ′ᵀ⟩ for each example, summed over the groups."""
    for factor in (one, two):
        factor._check_sides()

    def products(X: Array, X2: Array, Delta: Array, Delta2: Array) -> Array:
        of_P, of_Delta = across_patches(X, one.window, X2, two.window), across(Delta, Delta2, one.window.groups)
        return jnp.sum(of_P * of_Delta, axis=tuple(range(1, of_P.ndim)))

    return meshes.along_batch(products, one.X, two.X, one.Delta, two.Delta)


def _gram_flops(one: Correlation, two: Correlation) -> int:
    """P P′ᵀ and Δ Δ′ᵀ, of all groups."""
    (T, _, _), (S, _, _) = _sizes(one), _sizes(two)
    return min(across_flops(one.X, one.window, two.X, two.window)) + 2 * T * S * one.Delta.shape[-1]


def _gram_is_cheaper(one: Correlation, two: Correlation) -> bool:
    """Gram's operations against those of two gradients, (T + S) n_in n_out for each group, and its memory."""
    (T, n_in, n_out), (S, _, _), groups = _sizes(one), _sizes(two), one.window.groups
    if two.window.groups != groups or n_in * n_out < T * S:
        return False
    return _gram_flops(one, two) <= 2 * (T + S) * n_in * n_out * groups
