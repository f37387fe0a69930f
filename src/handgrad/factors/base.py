"""What every factor knows for itself: the contract, and the plain way to meet it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import InputError, check_choice, check_shape, describe
from handgrad.factors.pieces import Pieces

Array = jax.Array


class Cost(NamedTuple):
    """What one way to ‖g_b‖² costs, for one example.

    Attributes:
      flops: multiplications and additions.
      bytes: what stands in memory besides the factor, at the dtype of the sum.
    """

    flops: int
    bytes: int


class Factor(ABC):
    """One parameter's gradient, not yet multiplied out.

    The gradient of a batch is G = Σ_b w_b g_b, where g_b is example b's own gradient and has the parameter's shape. A
    factor holds what every g_b is made of, batch first, and multiplies only what it is asked for. Factors are frozen
    dataclasses and JAX pytrees: they pass through jit, vmap and scan.

    A factor must say `batch`, `shape`, `dtype`, `accumulate` and `per_example`. The other folds are given here the
    plain way: gradients written out, a few examples at a time, so that (batch, *shape) never stands in memory. A factor
    overrides those it knows a shorter way for. Folds run in at least float32 and stay there; only `sum` comes back in
    the parameter's dtype.

    Attributes:
      asked_first: ⟨g, h⟩ is ⟨h, g⟩, and a kind that says True knows a shorter way with others than they with it.
    """

    asked_first = False

    @property
    @abstractmethod
    def batch(self) -> int:
        """The number of examples."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""

    @property
    @abstractmethod
    def dtype(self) -> Any:
        """The parameter's dtype."""

    @abstractmethod
    def accumulate(self, weights: Array | None = None) -> Array:
        """`sum`, not yet rounded to the parameter's dtype and with its weights not yet checked."""

    @abstractmethod
    def per_example(self) -> Array:
        """Every g_b, written out: (batch, *shape). For small parameters and for tests."""

    def sum(self, weights: Array | None = None) -> Array:
        """The gradient Σ_b w_b g_b, in the parameter's shape and dtype.

        Args:
          weights: (batch,) the w_b; None stands for ones.
        Raises:
          InputError: weights of another length than the batch.
        """
        if weights is not None:
            check_shape(f"{type(self).__name__}.sum", "weights", weights, (self.batch,), "(one for each example)")
        return self.accumulate(weights).astype(self.dtype)

    def sq_norms(self, method: str = "auto") -> Array:
        """‖g_b‖² for each example: (batch,).

        Args:
          method: one of `norm_methods`, or "auto": the one of fewest operations.
        Raises:
          InputError: a method that this factor doesn't know.
        """
        known = self.norm_methods()
        check_choice(f"{type(self).__name__}.sq_norms", "method", method, ("auto", *known))
        return self._sq_norms(cheapest(known) if method == "auto" else method)

    def norm_methods(self) -> dict[str, Cost]:
        """The ways to `sq_norms` that this factor knows, and what each costs."""
        size = math.prod(self.shape)
        return {"direct": Cost(2 * size, size * accumulator(self.dtype).itemsize)}

    def inner(self, other: "Factor") -> Array:
        """⟨g_b, h_b⟩ for each example, h being the other factor's gradients: (batch,).

        Raises:
          InputError: the other factor is of another batch or another parameter's shape.
        """
        mine, theirs = (self.batch, *self.shape), (other.batch, *other.shape)
        if mine != theirs:
            name = type(self).__name__
            raise InputError(f"{name}.inner: other must have (batch, *shape) {mine}, got {theirs}")
        return self._inner(other)

    def gram(self) -> Array:
        """⟨g_b, g_c⟩ for every two examples: (batch, batch).

        Of examples k apart it is `inner` with the factor's own examples moved on by k: batch / 2 of these folds, the
        other half being the same numbers. Every device that holds examples needs all of them for it.
        """
        here, batch = meshes.replicated(self), self.batch
        apart = jnp.arange(batch // 2 + 1)
        products = jax.lax.map(lambda k: here._inner(here.pick(lambda a: jnp.roll(a, -k, axis=0))), apart)
        b, c = jnp.indices((batch, batch))
        k = (c - b) % max(batch, 1)
        return jnp.where(k < len(apart), products[k, b], products[(batch - k) % max(batch, 1), c])

    def second_moment(self) -> Array:
        """Σ_b g_b∘g_b: the parameter's shape."""

        def of_some(start: Any, count: int) -> Array:
            return jnp.sum(self.pick(pieces.rows(start, count)).per_example() ** 2, axis=0)

        def add(i: Array, total: Array) -> Array:
            return total + of_some(i * pieces.size, pieces.size)

        pieces = _pieces(self)
        if not pieces.whole:
            return of_some(0, pieces.rest)
        rest = pieces.whole * pieces.size, pieces.rest
        zeros = jnp.zeros(self.shape, jax.eval_shape(self.accumulate).dtype)
        return meshes.fori_loop(pieces.whole, add, of_some(*rest) if pieces.rest else zeros, self)

    def by_token(self) -> "Factor":
        """The same gradients with every token an example of its own: batch × tokens of them, each token's part of g_b.

        Raises:
          InputError: a factor that knows no tokens.
        """
        raise InputError(f"{type(self).__name__}.by_token: this gradient is not a sum over tokens")

    def layers(self) -> "Factor | None":
        """The factor of one layer, each of its arrays with an axis of layers in front, for jax.vmap; None where the
        parameter is not a stack."""
        return None

    def counting(self, seen: Array) -> "Factor":
        """The same gradients, `seen` (batch, ...) saying which tokens count in a mean over tokens: not padding.

        A factor that no such mean is taken of, or whose tokens are others, is returned as it is.
        """
        return self

    def project(self, P: Array) -> "Factor":
        """The factor of Pᵀ g_b, P (n_in, r): every gradient in the small space of (r, n_out), none ever in the large.

        Raises:
          InputError: the parameter is not a matrix; P has another number of rows than it.
        """
        raise InputError(f"{type(self).__name__}.project: expected a matrix's factor, got that of {self.shape}")

    def pick(self, rows: Callable[[Array], Array]) -> "Factor":
        """The factor of other examples: `rows` picks them from an array that has a row for each example."""
        return jax.tree.map(rows, self)

    def examples(self, start: Any, count: int) -> "Factor":
        """The factor of `count` examples from `start` on, which may be traced."""
        return self.pick(lambda a: jax.lax.dynamic_slice_in_dim(a, start, count))

    def _sq_norms(self, method: str) -> Array:
        """`sq_norms` by a method that is known."""
        return self._written_out(self)

    def _inner(self, other: "Factor") -> Array:
        """`inner` of a factor that fits: where a shorter way is known, it goes here."""
        return other._inner(self) if other.asked_first else self._written_out(other)

    def _written_out(self, other: "Factor") -> Array:
        """⟨g_b, h_b⟩ of gradients written out, some examples at a time."""

        def of_some(start: Any, count: int) -> Array:
            g = self.pick(pieces.rows(start, count)).per_example()
            h = g if other is self else other.pick(pieces.rows(start, count)).per_example()
            return jnp.sum(g * h, axis=tuple(range(1, g.ndim))).reshape(pieces.places, count)

        pieces = _pieces(self, other)
        if not pieces.whole:
            return of_some(0, pieces.rest).reshape(self.batch)
        stacked = jax.lax.map(lambda i: of_some(i * pieces.size, pieces.size), jnp.arange(pieces.whole))
        products = jnp.moveaxis(stacked, 0, 1).reshape(pieces.places, pieces.whole * pieces.size)
        if pieces.rest:
            of_rest = of_some(pieces.whole * pieces.size, pieces.rest)
            products = jnp.concatenate([products, of_rest], axis=1)
        return products.reshape(self.batch)


def _pieces(*factors: Factor) -> Pieces:
    """The pieces in which these factors' gradients are written out."""
    batch = factors[0].batch
    room = sum(a.size for factor in factors for a in jax.tree.leaves(factor))
    written = sum(f.norm_methods()["direct"].bytes // accumulator(f.dtype).itemsize for f in factors)
    return Pieces.of_batch(batch, meshes.places(factors, batch), room, written)


def counting(factors: Any, seen: Array) -> Any:
    """A tree of factors, `seen` saying which of their tokens count; arrays among them stay as they are."""
    return jax.tree.map(lambda leaf: leaf.counting(seen) if is_factor(leaf) else leaf, factors, is_leaf=is_factor)


def cheapest(methods: dict[str, Cost]) -> str:
    """The method of fewest operations; of two like, the first."""
    return min(methods, key=lambda name: methods[name].flops)


def is_factor(node: Any) -> bool:
    """Whether `node` is a factor: the `is_leaf` of tree maps over factors."""
    return isinstance(node, Factor)


def accumulator(*values: Any) -> Any:
    """The dtype that sums over these arrays or dtypes run in: theirs, but float32 at least."""
    return jnp.promote_types(jnp.result_type(*values), jnp.float32)


def check_sides(factor: Any) -> None:
    """Both sides of a product belong to the same examples and tokens: nothing is broadcast in silence."""
    A, Delta = factor.A, factor.Delta
    check_shape(type(factor).__name__, "Delta", Delta, (*A.shape[:-1], Delta.shape[-1]), "(A's examples and tokens)")


def check_projection(where: str, P: Any, shape: tuple[int, ...]) -> None:
    """`P` has a row for each row of the matrix whose gradient it projects."""
    if len(getattr(P, "shape", ())) != 2 or P.shape[0] != shape[0]:
        raise InputError(f"{where}.project: P must have shape ({shape[0]}, r), got {describe(P)}")


def weighted(Delta: Array, weights: Array | None) -> Array:
    """Delta with example b times w_b, in the dtype of the sum that follows."""
    if weights is None:
        return Delta
    dtype = accumulator(Delta)
    return Delta.astype(dtype) * jnp.expand_dims(weights.astype(dtype), tuple(range(1, Delta.ndim)))


def seen_too(before: Array | None, seen: Array, tokens: tuple[int, ...]) -> Array | None:
    """Which of a factor's tokens (batch, ...) are in both; as before, where `seen` is of other tokens."""
    if tokens[: seen.ndim] != seen.shape:
        return before
    seen = jnp.broadcast_to(jnp.expand_dims(seen, tuple(range(seen.ndim, len(tokens)))), tokens)
    return seen if before is None else before & seen


def as_rows(A: Array) -> Array:
    """(batch, ..., n) as (batch × tokens, n): one long batch."""
    return A.reshape(math.prod(A.shape[:-1]), A.shape[-1])


def as_tokens(A: Array) -> Array:
    """(batch, ..., n) as (batch, tokens, n): a batch without middle axes has one token."""
    return A.reshape(A.shape[0], math.prod(A.shape[1:-1]), A.shape[-1])


def materialize(factors: Any, weights: Array | None = None) -> Any:
    """Multiply factors out: Σ_b w_b g_b for each parameter.

    Args:
      factors: a pytree of factors. An array among them is a gradient that its layer has summed already; it stays as
        it is.
      weights: (batch,) the w_b; None stands for ones.
    Returns:
      grads: an array in each factor's place.
    Raises:
      InputError: weights of another length than the batch; weights for a gradient that is summed already.
    """

    def multiply(factor):
        if is_factor(factor):
            return factor.sum(weights)
        if weights is not None:
            raise InputError(f"materialize: weights need a factor, got a summed gradient, {describe(factor)}")
        return factor

    return jax.tree.map(multiply, factors, is_leaf=is_factor)
