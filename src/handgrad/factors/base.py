"""What every factor knows for itself: the contract, and the plain way to meet it."""

import math
from abc import ABC, abstractmethod
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.shapes import check_shape

Array = jax.Array


class Factor(ABC):
    """One parameter's gradient, not yet multiplied out.

    The gradient of a batch is G = Σ_b w_b g_b, where g_b is example b's own gradient and has the parameter's shape. A
    factor holds what every g_b is made of, batch first, and multiplies only what it is asked for. Factors are frozen
    dataclasses and JAX pytrees: they pass through jit, vmap and scan.

    A factor must say `batch`, `shape`, `dtype`, `sum` and `per_example`. The other folds are given here the plain
    way, one example at a time, so that (batch, *shape) never stands in memory; a factor overrides those it knows a
    shorter way for. Folds run in at least float32 and stay there; only `sum` comes back in the parameter's dtype.
    """

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
    def sum(self, weights: Array | None = None) -> Array:
        """The gradient Σ_b w_b g_b, in the parameter's shape and dtype.

        Args:
          weights: (batch,) the w_b; None stands for ones.
        """

    @abstractmethod
    def per_example(self) -> Array:
        """Every g_b, written out: (batch, *shape). For small parameters and for tests."""

    def sq_norms(self) -> Array:
        """‖g_b‖² for each example: (batch,)."""
        return self.inner(self)

    def inner(self, other: "Factor") -> Array:
        """⟨g_b, h_b⟩ for each example, h being the other factor's gradients: (batch,)."""
        one_by_one = jnp.arange(self.batch)
        return jax.lax.map(lambda b: jnp.vdot(_written_out(self, b), _written_out(other, b)), one_by_one)

    def second_moment(self) -> Array:
        """Σ_b g_b∘g_b: the parameter's shape."""
        zero = jnp.zeros(self.shape, accumulator(self.dtype))
        return jax.lax.fori_loop(0, self.batch, lambda b, total: total + _written_out(self, b) ** 2, zero)

    def example(self, b: Any) -> "Factor":
        """The factor of example `b` alone, a batch of one; `b` may be traced."""
        return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, b, 1), self)


def is_factor(node: Any) -> bool:
    """Whether `node` is a factor: the `is_leaf` of tree maps over factors."""
    return isinstance(node, Factor)


def accumulator(*values: Any) -> Any:
    """The dtype that sums over these arrays or dtypes run in: theirs, but float32 at least."""
    return jnp.promote_types(jnp.result_type(*values), jnp.float32)


def check_weights(where: str, weights: Array | None, batch: int) -> None:
    """`weights` is None or one number for each example."""
    if weights is not None:
        check_shape(where, "weights", weights, (batch,), "one for each example")


def weighted(Delta: Array, weights: Array | None) -> Array:
    """Delta with example b times w_b, in the dtype of the sum that follows."""
    if weights is None:
        return Delta
    dtype = accumulator(Delta)
    return Delta.astype(dtype) * jnp.expand_dims(weights.astype(dtype), tuple(range(1, Delta.ndim)))


def as_tokens(A: Array) -> Array:
    """(batch, ..., n) as (batch, tokens, n): a batch without middle axes has one token."""
    return A.reshape(A.shape[0], math.prod(A.shape[1:-1]), A.shape[-1])


def _written_out(factor: Factor, b: Any) -> Array:
    """g_b itself."""
    return factor.example(b).per_example()[0]
