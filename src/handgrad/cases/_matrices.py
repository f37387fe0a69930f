"""What cases/linear_algebra.py compares equations and functions of matrices with: from their definitions, without
eigenvalues, so that autodiff is right where these are equal."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.cases.case import Function


class Pair(tuple[Any, ...]):
    """A function and its derivative, with a name."""

    def __repr__(self) -> str:
        return "sine"


SINE = Pair((jnp.sin, jnp.cos))


def in_float32(function: Function) -> Function:
    """A function of JAX's in a dtype that LAPACK has, its outputs in the promoted dtype of its arguments."""

    @functools.wraps(function)
    def rounded(*arrays: Array, **options: Any) -> Any:
        dtype = jnp.result_type(*arrays)
        wide = [a.astype(jnp.promote_types(dtype, jnp.float32)) for a in arrays]
        outputs = function(*wide, **options)
        return jax.tree.map(lambda y: y.astype(dtype), tuple(outputs) if isinstance(outputs, tuple) else outputs)

    return rounded


def size_of(X: Array) -> Array:
    """Each matrix's largest element, a constant, by which it may be divided before and multiplied after."""
    return jax.lax.stop_gradient(jnp.max(jnp.abs(X), axis=(-2, -1), keepdims=True))


def square_root(X: Array) -> Array:
    """Newton's iteration in the coupled form of Denman and Beavers, as they wrote it: Y to X^½, Z to X^(−½)."""

    def step(YZ: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        Y, Z = YZ
        return ((Y + jnp.linalg.inv(Z)) / 2, (Z + jnp.linalg.inv(Y)) / 2), None

    identity, size = jnp.broadcast_to(jnp.eye(X.shape[-1], dtype=X.dtype), X.shape), size_of(X)
    return jnp.sqrt(size) * jax.lax.scan(step, (X / size, identity), length=12)[0][0]


def logarithm(X: Array) -> Array:
    """∫₀¹ (X − I) (I + t (X − I))⁻¹ dt by Gauss's rule, of so many points that nothing needs to be near I."""
    nodes, weights = (jnp.asarray(a, X.dtype) for a in np.polynomial.legendre.leggauss(48))
    identity, size = jnp.broadcast_to(jnp.eye(X.shape[-1], dtype=X.dtype), X.shape), size_of(X)
    X = X / size
    each = jax.vmap(lambda t: jnp.linalg.solve(identity + t * (X - identity), X - identity))((1 + nodes) / 2)
    return jnp.tensordot(weights / 2, each, 1) + jnp.log(size) * identity


def symmetric_function(X: Array, f: Any) -> Array:
    """Of the symmetric part; the sine by Euler's formula."""
    X = (X + jnp.swapaxes(X, -1, -2)) / 2
    if f == "exp":
        return jax.scipy.linalg.expm(X)
    if f is SINE:
        return jax.scipy.linalg.expm(1j * X).imag
    return {"sqrt": square_root, "log": logarithm, -0.5: lambda X: jnp.linalg.inv(square_root(X))}[f](X)


def sylvester(A: Array, B: Array, C: Array, method: str = "") -> Array:
    """I ⊗ A + Bᵀ ⊗ I on C's elements, column by column."""

    def one(A: Array, B: Array, C: Array) -> Array:
        K = jnp.kron(jnp.eye(len(B)), A) + jnp.kron(B.T, jnp.eye(len(A)))
        return jnp.linalg.solve(K.astype(C.dtype), C.T.ravel()).reshape(C.T.shape).T

    return jax.vmap(one)(A, B, C)


def lyapunov(A: Array, Q: Array, method: str = "") -> Array:
    """Sylvester's equation."""
    return sylvester(A, jnp.swapaxes(A, -1, -2), Q)


def discrete_lyapunov(A: Array, Q: Array) -> Array:
    """I − A ⊗ A on Q's elements, column by column."""

    def one(A: Array, Q: Array) -> Array:
        K = jnp.eye(A.size).astype(A.dtype) - jnp.kron(A, A)
        return jnp.linalg.solve(K, Q.T.ravel()).reshape(Q.shape).T

    return jax.vmap(one)(A, Q)


def pseudo_inverse(X: Array, rtol: float | None = None) -> Array:
    """(XᵀX)⁻¹ Xᵀ, or Xᵀ (X Xᵀ)⁻¹ where X is wide."""
    Xt = jnp.swapaxes(X, -1, -2)
    return jnp.linalg.inv(Xt @ X) @ Xt if X.shape[-2] >= X.shape[-1] else Xt @ jnp.linalg.inv(X @ Xt)


def least_squares(A: Array, B: Array) -> Array:
    """The normal equations."""
    return pseudo_inverse(A) @ B


def low_rank(d: Array, U: Array, V: Array) -> Array:
    """diag(d) + U Vᵀ."""
    return jax.vmap(jnp.diag)(d) + U @ jnp.swapaxes(V, -1, -2)
