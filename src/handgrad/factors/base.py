"""What every factor knows for itself: the contract, and the plain way to meet it."""

import math
from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.shapes import InputError, check_shape

Array = jax.Array


class Factor(ABC):
    """One parameter's gradient, not yet multiplied out.

    The gradient of a batch is G = Σ_b w_b g_b, where g_b is example b's own gradient and has the parameter's shape. A
    factor holds what every g_b is made of, batch first, and multiplies only what it is asked for. Factors are frozen
    dataclasses and JAX pytrees: they pass through jit, vmap and scan.

    A factor must say `batch`, `shape`, `dtype`, `accumulate` and `per_example`. The other folds are given here the
    plain way, one example at a time, so that (batch, *shape) never stands in memory; a factor overrides those it
    knows a shorter way for. Folds run in at least float32 and stay there; only `sum` comes back in the parameter's
    dtype.

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

    def sq_norms(self) -> Array:
        """‖g_b‖² for each example: (batch,)."""
        return self._inner(self)

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

    def second_moment(self) -> Array:
        """Σ_b g_b∘g_b: the parameter's shape."""
        zero = jnp.zeros_like(jax.eval_shape(lambda: _written_out(self, 0)))
        return jax.lax.fori_loop(0, self.batch, lambda b, total: total + _written_out(self, b) ** 2, zero)

    def _inner(self, other: "Factor") -> Array:
        """`inner` of a factor that fits: where a shorter way is known, it goes here."""
        if other.asked_first:
            return other._inner(self)
        one_by_one = jnp.arange(self.batch)
        return jax.lax.map(lambda b: jnp.vdot(_written_out(self, b), _written_out(other, b)), one_by_one)

    def example(self, b: Any) -> "Factor":
        """The factor of example `b` alone, a batch of one; `b` may be traced."""
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, b, 1), self)


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


def weighted(Delta: Array, weights: Array | None) -> Array:
    """Delta with example b times w_b, in the dtype of the sum that follows."""
    if weights is None:
        return Delta
    dtype = accumulator(Delta)
    return Delta.astype(dtype) * jnp.expand_dims(weights.astype(dtype), tuple(range(1, Delta.ndim)))


def as_rows(A: Array) -> Array:
    """(batch, ..., n) as (batch × tokens, n): one long batch."""
    return A.reshape(math.prod(A.shape[:-1]), A.shape[-1])


def as_tokens(A: Array) -> Array:
    """(batch, ..., n) as (batch, tokens, n): a batch without middle axes has one token."""
    return A.reshape(A.shape[0], math.prod(A.shape[1:-1]), A.shape[-1])


def _written_out(factor: Factor, b: Any) -> Array:
    """g_b itself."""
    return factor.example(b).per_example()[0]
