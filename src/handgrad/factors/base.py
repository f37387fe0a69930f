"""The contract of every factor, and its default implementation."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from handgrad import meshes
from handgrad.checks import InputError, check_choice, check_shape, describe
from handgrad.factors.chunks import Chunks
from handgrad.factors.costs import Cost, cheapest

Gradient = Float[Array, "*shape"]
Gradients = Float[Array, " batch *shape"]
Numbers = Float[Array, " batch"]  # one for each example
Weights = Float[Array, " batch"] | None
Mask = Bool[Array, " batch *tokens"]


class Factor(ABC):
    """One parameter's gradient, not yet multiplied out.

    The gradient of a batch is G = Σ_b w_b g_b, where g_b is example b's own gradient and has the parameter's shape. A
    factor holds the arrays that every g_b is computed from, batch first, and each fold multiplies only what it needs.
    Factors are frozen dataclasses and JAX pytrees: they pass through jit, vmap and scan.

    A factor must implement `shape`, `accumulate` and `per_example`. The defaults of all other folds
    materialize per-example gradients, but only a chunk of the batch at a time, so that (batch, *shape) is never live; a
    factor overrides those that its structure makes cheaper. Folds run in at least float32 and return that; only `sum`
    returns the parameter's dtype.

    Attributes:
      param_dtype: the parameter's dtype; None stands for the promoted dtype of the factor's arrays.
      takes_precedence: `inner` is symmetric and dispatches on both types (double dispatch): of two factors of different
        types, the one that takes precedence computes it.
    """

    param_dtype: DTypeLike | None = None
    takes_precedence = False

    @property
    def batch(self) -> int:
        """The number of examples: the first axis of every array."""
        return jax.tree.leaves(self)[0].shape[0]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""

    @property
    def dtype(self) -> np.dtype:
        """The parameter's dtype."""
        if self.param_dtype is not None:
            return jnp.dtype(self.param_dtype)
        dtypes = (a.dtype for a in jax.tree.leaves(self))
        return jnp.result_type(*(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)))

    @abstractmethod
    def accumulate(self, weights: Weights = None) -> Gradient:
        """`sum` in the dtype of the accumulation, its weights not checked."""

    @abstractmethod
    def per_example(self) -> Gradients:
        """Every g_b, materialized. For small parameters and for tests."""

    def sum(self, weights: Weights = None) -> Gradient:
        """The gradient Σ_b w_b g_b, in the parameter's dtype.

        >>> import jax.numpy as jnp, handgrad as hg
        >>> hg.factors.Outer(A=jnp.ones((2, 3)), Delta=jnp.ones((2, 1))).sum().shape
        (3, 1)

        Args:
          weights: the w_b; None stands for ones.
        """
        if weights is not None:
            check_shape(f"{type(self).__name__}.sum", "weights", weights, (self.batch,), "(one for each example)")
        return self.accumulate(weights).astype(self.dtype)

    def sq_norms(self, method: str = "auto") -> Numbers:
        """‖g_b‖² for each example.

        Args:
          method: one of `norm_methods`, or "auto", which takes the one of fewest operations.
        """
        methods = self.norm_methods()
        check_choice(f"{type(self).__name__}.sq_norms", "method", method, ("auto", *methods))
        return self._sq_norms(cheapest(methods) if method == "auto" else method)

    def norm_methods(self) -> dict[str, Cost]:
        """The methods of `sq_norms` that this factor has, and what each costs."""
        size = math.prod(self.shape)
        return {"direct": Cost(2 * size, size * accumulator(self.dtype).itemsize)}

    def inner(self, other: "Factor") -> Numbers:
        """⟨g_b, h_b⟩ for each example, h being the other factor's gradients, of the same batch and shape."""
        mine, theirs = (self.batch, *self.shape), (other.batch, *other.shape)
        if mine != theirs:
            name = type(self).__name__
            raise InputError(f"{name}.inner: other must have (batch, *shape) {mine}, got {theirs}")
        return self._inner(other)

    def gram(self) -> Float[Array, "batch batch"]:
        """⟨g_b, g_c⟩ for every two examples.

        Of examples k apart it is `inner` of the factor and the factor rolled by k: batch / 2 of these folds, since the
        result is symmetric. All-gathers the factor where the batch is sharded.
        """
        gathered, batch = meshes.replicated(self), self.batch
        offsets = jnp.arange(batch // 2 + 1)
        products = jax.lax.map(lambda k: gathered._inner(gathered.pick(lambda a: jnp.roll(a, -k, axis=0))), offsets)
        b, c = jnp.indices((batch, batch))
        k = (c - b) % max(batch, 1)
        return jnp.where(k < len(offsets), products[k, b], products[(batch - k) % max(batch, 1), c])

    def second_moment(self) -> Gradient:
        """Σ_b g_b∘g_b."""

        def of_chunk(start: int | Array, size: int) -> Array:
            return jnp.sum(self.pick(chunks.rows(start, size)).per_example() ** 2, axis=0)

        def add(i: Array, total: Array) -> Array:
            return total + of_chunk(i * chunks.size, chunks.size)

        chunks = _chunks(self)
        if not chunks.whole:
            return of_chunk(0, chunks.rest)
        rest = chunks.whole * chunks.size, chunks.rest
        zeros = jnp.zeros(self.shape, jax.eval_shape(self.accumulate).dtype)
        return meshes.fori_loop(chunks.whole, add, of_chunk(*rest) if chunks.rest else zeros, self)

    def by_token(self) -> "Factor":
        """The same gradients with every token as an example: batch × tokens of them, each token's part of g_b."""
        raise InputError(f"{type(self).__name__}.by_token: this gradient is not a sum over tokens")

    def layers(self) -> "Factor | None":
        """The factor of one layer of a stack, each of its arrays with a leading axis of layers, for jax.vmap; None
        where the parameter is not a stack."""
        return None

    def with_mask(self, mask: Mask) -> "Factor":
        """The same gradients; `mask` is True for the tokens that count in a mean over tokens, False for padding.

        A factor without means over tokens, or with other tokens, is returned unchanged.
        """
        return self

    def project(self, P: Float[Array, "n_in r"]) -> "Factor":
        """The factor of Pᵀ g_b: gradients of shape (r, n_out), without materializing those of (n_in, n_out)."""
        raise InputError(f"{type(self).__name__}.project: expected a matrix's factor, got that of {self.shape}")

    def pick(self, rows: Callable[[Array], Array]) -> Self:
        """The factor of other examples: `rows` picks them from an array that has a row for each example."""
        return jax.tree.map(rows, self)

    def examples(self, start: int | Int[Array, ""], count: int) -> Self:
        """The factor of `count` examples from `start` on."""
        return self.pick(lambda a: jax.lax.dynamic_slice_in_dim(a, start, count))

    def _sq_norms(self, method: str) -> Numbers:
        """`sq_norms` by one of `norm_methods`."""
        return self._materialized_inner(self)

    def _inner(self, other: "Factor") -> Numbers:
        """`inner`, of a factor of the same batch and shape."""
        return other._inner(self) if other.takes_precedence else self._materialized_inner(other)

    def _materialized_inner(self, other: "Factor") -> Numbers:
        """⟨g_b, h_b⟩ of materialized gradients, a chunk of the batch at a time."""

        def of_chunk(start: int | Array, size: int) -> Array:
            g = self.pick(chunks.rows(start, size)).per_example()
            h = g if other is self else other.pick(chunks.rows(start, size)).per_example()
            return jnp.sum(g * h, axis=tuple(range(1, g.ndim))).reshape(chunks.devices, size)

        chunks = _chunks(self, other)
        if not chunks.whole:
            return of_chunk(0, chunks.rest).reshape(self.batch)
        stacked = jax.lax.map(lambda i: of_chunk(i * chunks.size, chunks.size), jnp.arange(chunks.whole))
        products = jnp.moveaxis(stacked, 0, 1).reshape(chunks.devices, chunks.whole * chunks.size)
        if chunks.rest:
            of_rest = of_chunk(chunks.whole * chunks.size, chunks.rest)
            products = jnp.concatenate([products, of_rest], axis=1)
        return products.reshape(self.batch)


def _chunks(*factors: Factor) -> Chunks:
    """The chunks in which these factors' gradients are materialized."""
    batch = factors[0].batch
    held = sum(a.size for factor in factors for a in jax.tree.leaves(factor))
    written = sum(f.norm_methods()["direct"].bytes // accumulator(f.dtype).itemsize for f in factors)
    return Chunks.of_batch(batch, meshes.places(factors, batch), held, written)


def is_factor(node: object) -> TypeGuard[Factor]:
    """Whether `node` is a factor: the `is_leaf` of tree maps over factors."""
    return isinstance(node, Factor)


def accumulator(*values: Shaped[Array, "..."] | DTypeLike) -> np.dtype:
    """The dtype that sums over these arrays or dtypes run in: theirs, but float32 at least."""
    return jnp.promote_types(jnp.result_type(*values), jnp.float32)


def check_sides(factor: Factor, A: Array, Delta: Array) -> None:
    """Both sides of a product belong to the same examples and tokens: nothing is broadcast."""
    check_shape(type(factor).__name__, "Delta", Delta, (*A.shape[:-1], Delta.shape[-1]), "(A's examples and tokens)")


def check_projection(where: str, P: Array, shape: tuple[int, ...]) -> None:
    """`P` has a row for each row of the matrix whose gradient it projects."""
    if len(getattr(P, "shape", ())) != 2 or P.shape[0] != shape[0]:
        raise InputError(f"{where}.project: P must have shape ({shape[0]}, r), got {describe(P)}")


def weighted(Delta: Float[Array, " batch ..."], weights: Weights) -> Float[Array, " batch ..."]:
    """Delta with example b times w_b, in the dtype of the sum that follows."""
    if weights is None:
        return Delta
    dtype = accumulator(Delta)
    return Delta.astype(dtype) * jnp.expand_dims(weights.astype(dtype), tuple(range(1, Delta.ndim)))


def combined_mask(before: Mask | None, mask: Bool[Array, " batch ..."], tokens: tuple[int, ...]) -> Mask | None:
    """The tokens (batch, ...) of a factor that are in both masks; `before`, where `mask` is of other tokens."""
    if tokens[: mask.ndim] != mask.shape:
        return before
    mask = jnp.broadcast_to(jnp.expand_dims(mask, tuple(range(mask.ndim, len(tokens)))), tokens)
    return mask if before is None else before & mask


def as_rows(A: Shaped[Array, " batch *tokens n"]) -> Shaped[Array, "rows n"]:
    """(batch, ..., n) as (batch × tokens, n): one long batch."""
    return A.reshape(math.prod(A.shape[:-1]), A.shape[-1])


def as_tokens(A: Shaped[Array, " batch *axes n"]) -> Shaped[Array, "batch tokens n"]:
    """(batch, ..., n) as (batch, tokens, n): a batch without middle axes has one token."""
    return A.reshape(A.shape[0], math.prod(A.shape[1:-1]), A.shape[-1])
