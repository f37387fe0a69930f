"""Correlation: the gradient of every convolution's kernel, Σ_b X_b ⋆ Δ_b."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import check_shape
from handgrad.factors.base import Array, Cost, Factor, accumulator, as_tokens, seen_too, weighted
from handgrad.factors.windows import Window, of_tap, padded, patches


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Correlation(Factor):
    """g_b = X_b ⋆ Δ_b: at each tap, Σ_i x δᵀ over the outputs i, x being what output i saw through that tap.

    With P_b the patches, one row for what each output saw, it is P_bᵀ Δ_b: an Outer whose left side is not written
    out. It has the kernel's shape, (*size, n_in / groups, n_out); each group of n_out / groups features meets its own
    n_in / groups.

    Attributes:
      X: (batch, *space, n_in) what the window slid over.
      Delta: (batch, *outputs, n_out) cotangent of the products.
      window: how it slid.
      param_dtype: the parameter's dtype; None stands for the promoted dtype of X and Delta.
      seen: (batch, *outputs) booleans, which outputs count, as for Outer; None stands for all.
    Derivation: docs/derivations/images/convolution.md
    """

    X: Array
    Delta: Array
    window: Window = field(metadata={"static": True})
    param_dtype: Any = field(default=None, metadata={"static": True})
    seen: Array | None = None

    @property
    def batch(self) -> int:
        return self.X.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.window.size, self.X.shape[-1] // self.window.groups, self.Delta.shape[-1])

    @property
    def dtype(self) -> Any:
        return self.param_dtype or jnp.result_type(self.X.dtype, self.Delta.dtype)

    def accumulate(self, weights: Array | None = None) -> Array:
        """Σ_b w_b X_b ⋆ Δ_b: ONE convolution, the examples its features, Δ its kernel.

        Strides and dilation change places: taps are d apart, and what one tap multiplies is s apart. Both sides are
        turned to features last, the one form that XLA compiles well on CPU inside a branch or a loop. A group of these
        features is the batch, seen through one group of X.
        """
        self._check_sides()
        window, axes = self.window, len(self.window.size)
        Delta = weighted(self.Delta, weights)
        dtype = jnp.result_type(self.X, Delta)
        space, n_in = self.X.shape[1:-1], self.X.shape[-1] // window.groups
        if window.groups > 1 and (n_in == 1 or meshes.places(self.X, self.batch) > 1):
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
        """One product for each tap: where features meet alone, or groups would have the batch among their features,
        which may lie on several devices."""
        dtype, outputs, groups = accumulator(self.X, Delta), Delta.shape[1:-1], self.window.groups

        def by_group(A: Array) -> Array:
            A = as_tokens(A)
            return A.reshape(*A.shape[:2], groups, A.shape[-1] // groups)

        def product(x: Array) -> Array:
            if x.shape[-1] > 1:
                return meshes.einsum("btgi,btgo->igo", x, Delta, dtype)
            return jnp.sum(x.astype(dtype) * Delta, axis=(0, 1))[
                None
            ]  # numbers, for which a product of matrices is slow

        X, Delta = padded(self.X, self.window, 0), meshes.along_batch(by_group, Delta)
        taps = (meshes.along_batch(by_group, of_tap(X, self.window, tap, outputs)) for tap in self.window.taps())
        return jnp.stack(list(map(product, taps))).reshape(self.shape)

    def per_example(self) -> Array:
        self._check_sides()
        P, Delta = self._by_groups()
        dtype = accumulator(P, Delta)
        g = jnp.einsum("btkgi,btgo->bkigo", P, Delta, preferred_element_type=dtype)
        return meshes.along_batch(lambda g: g.reshape(self.batch, *self.shape), g)

    def norm_methods(self) -> dict[str, Cost]:
        """gram: ⟨P Pᵀ, Δ Δᵀ⟩ of the patches; direct: PᵀΔ written out. As for Outer, group by group."""
        T, n_in, n_out = _sizes(self)
        groups, itemsize = self.window.groups, accumulator(self.X, self.Delta).itemsize
        return {
            "gram": Cost(2 * T * T * (n_in + n_out) * groups, T * (2 * T + n_in) * groups * itemsize),
            "direct": Cost(2 * T * n_in * n_out * groups, n_in * (T + n_out) * groups * itemsize),
        }

    def by_token(self) -> "Correlation":
        """Every output an example: its patch as the space of a window that has one place to be."""
        self._check_sides()
        P, size = patches(self.X, self.window), self.window.size
        P = P.reshape(-1, *size, P.shape[-1])
        Delta = self.Delta.reshape(len(P), *(1 for _ in size), self.Delta.shape[-1])
        one = tuple(1 for _ in size)
        window = Window(size, one, tuple((0, 0) for _ in size), one, self.window.groups)
        seen = None if self.seen is None else self.seen.reshape(Delta.shape[:-1])
        return Correlation(P, Delta, window, self.param_dtype, seen)

    def counting(self, seen: Array) -> "Correlation":
        return replace(self, seen=seen_too(self.seen, seen, self.Delta.shape[:-1]))

    def _sq_norms(self, method: str) -> Array:
        return jnp.maximum(_gram(self, self), 0) if method == "gram" else self._written_out(self)

    def _inner(self, other: Factor) -> Array:
        """⟨PᵀΔ, P′ᵀΔ′⟩ = ⟨P P′ᵀ, Δ Δ′ᵀ⟩, output by output, wherever that is less work than writing both out."""
        if isinstance(other, Correlation) and _gram_is_cheaper(self, other):
            return _gram(self, other)
        return super()._inner(other)

    def _by_groups(self) -> tuple[Array, Array]:
        """Patches (batch, outputs, taps, groups, n_in / groups) and Delta (batch, outputs, groups, n_out / groups)."""
        groups = self.window.groups
        P, Delta = patches(self.X, self.window), as_tokens(self.Delta)
        taps, n_in = P.shape[-2:]
        P = P.reshape(self.batch, Delta.shape[1], taps, n_in)
        return (
            P.reshape(*P.shape[:-1], groups, n_in // groups),
            Delta.reshape(*Delta.shape[:2], groups, Delta.shape[-1] // groups),
        )

    def _check_sides(self) -> None:
        """Both sides belong to the same examples and outputs: nothing is broadcast in silence."""
        outputs = self.window.outputs(self.X.shape[1:-1])
        shape = (self.batch, *outputs, self.Delta.shape[-1])
        check_shape("Correlation", "Delta", self.Delta, shape, "(X's examples and the window's outputs)")


def _sizes(factor: Correlation) -> tuple[int, int, int]:
    """Outputs, and the two sides of one group's gradient: (T, taps × n_in / groups, n_out / groups)."""
    *size_and_in, n_out = factor.shape
    return math.prod(factor.Delta.shape[1:-1]), math.prod(size_and_in), n_out // factor.window.groups


def _gram(one: Correlation, two: Correlation) -> Array:
    """⟨P P′ᵀ, Δ Δ′ᵀ⟩ for each example, summed over the groups."""
    for factor in (one, two):
        factor._check_sides()
    (P, Delta), (P2, Delta2) = one._by_groups(), two._by_groups()
    dtype = accumulator(P, Delta, P2, Delta2)
    across_P = jnp.einsum("btkgi,bskgi->bgts", P, P2, preferred_element_type=dtype)
    across_Delta = jnp.einsum("btgo,bsgo->bgts", Delta, Delta2, preferred_element_type=dtype)
    return jnp.sum(across_P * across_Delta, axis=(1, 2, 3))


def _gram_is_cheaper(one: Correlation, two: Correlation) -> bool:
    """T S (n_in + n_out) multiplications for each group against the (T + S) n_in n_out of two gradients."""
    (T, n_in, n_out), (S, _, _) = _sizes(one), _sizes(two)
    few = T * S * (n_in + n_out) <= (T + S) * n_in * n_out and n_in * n_out >= T * S
    return few and one.window.groups == two.window.groups
