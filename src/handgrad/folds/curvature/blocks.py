"""Approximate curvature of one parameter: a matrix that is never materialized, and its damped inverse."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Kronecker:
    """C = A ⊗ G, the curvature of a weight matrix W (n_in, n_out) whose elements are counted row by row.

    Under `repeat`, A and G have a leading axis for the layers. A convolution's kernel is a matrix whose n_in is its
    taps times its input features; with groups, each group has a matrix, and A and G an axis for the groups (after that
    of the layers).

    Attributes:
      A: second moment of what W is multiplied with.
      G: second moment of the cotangents of the product.
      groups: how many matrices the parameter consists of, side by side along its last axis.
    Derivation: docs/curvature.md
    """

    A: Float[Array, "*layers n_in n_in"]
    G: Float[Array, "*layers n_out n_out"]
    groups: int = field(default=1, metadata={"static": True})

    def times(self, V: Array) -> Array:
        """C v = A V G in the shape of V, the parameter's; Gᵀ is G."""
        n_in, n_out = self.A.shape[-1], self.G.shape[-1]
        in_front = V.shape[: self.A.ndim - (2 if self.groups == 1 else 3)]
        if self.groups == 1:
            M = V.reshape(*in_front, n_in, n_out)
            return _product(self.A, M, self.G).reshape(V.shape)
        M = V.reshape(*in_front, n_in, self.groups, n_out)
        return jnp.swapaxes(_product(self.A, jnp.swapaxes(M, -2, -3), self.G), -2, -3).reshape(V.shape)

    def inverse(self, damping: Array | float) -> "Kronecker":
        """(A + π √λ I)⁻¹ ⊗ (G + √λ / π I)⁻¹, about (C + λ I)⁻¹, with π² = (tr A / n_in) / (tr G / n_out).

        The damping λ is divided between the sides in proportion to their size (Martens & Grosse 2015, section 6.3).
        Where one of them is zero, so is C, and π = 1.
        """
        a, g = (jnp.trace(side, axis1=-2, axis2=-1) / side.shape[-1] for side in (self.A, self.G))
        is_there = (a > 0) & (g > 0)
        pi = jnp.where(is_there, jnp.sqrt(jnp.where(is_there, a, 1) / jnp.where(is_there, g, 1)), 1)
        root = jnp.sqrt(jnp.asarray(damping, self.A.dtype))
        return Kronecker(_inverse(self.A, pi * root), _inverse(self.G, root / pi), self.groups)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Diagonal:
    """C = diag(d): the curvature of a parameter that is not the matrix of a product, element by element.

    Attributes:
      d: the parameter's shape.
    """

    d: Array

    def times(self, V: Array) -> Array:
        """C v = d ∘ V."""
        return self.d * V

    def inverse(self, damping: Array | float) -> "Diagonal":
        """1 / (d + λ)."""
        return Diagonal(1 / (self.d + damping))


def is_block(node: PyTree) -> bool:
    """Whether `node` is the curvature of one parameter: the `is_leaf` of tree maps over these."""
    return isinstance(node, Kronecker | Diagonal)


def _product(A: Array, M: Array, G: Array) -> Array:
    return jnp.matmul(jnp.matmul(A, M), G)


def _inverse(S: Array, shift: Array) -> Array:
    """(S + shift I)⁻¹ of a symmetric positive S, by Cholesky's factors."""
    identity = jnp.eye(S.shape[-1], dtype=S.dtype)
    identity = jnp.broadcast_to(identity.reshape((1,) * (S.ndim - 2) + identity.shape), S.shape)
    factor = jnp.linalg.cholesky(S + jnp.expand_dims(shift, (-2, -1)) * identity)
    return jax.scipy.linalg.cho_solve((factor, True), identity)
