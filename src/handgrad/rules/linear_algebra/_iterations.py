"""Newton's iterations for the sign of a matrix: Sylvester equations, square roots and logarithms without eigenvalues.

Each step is an inverse and a few products, so that they run on every device, and the number of steps is fixed, so that
programs are static. Where an iteration has not converged, the result is NaN.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from handgrad import meshes
from handgrad.rules.linear_algebra._matrices import (
    Matrices,
    Square,
    exponent,
    identity_of,
    product,
    real_dtype,
    size_exponent,
    times_power,
    to_matrices,
)

STEPS = 12  # eight reach full precision at a condition number of 10¹², with eigenvalues off the imaginary axis
ROOTS = 9  # X^(1/512) − I is below NEAR for every X whose condition number has a meaning
NEAR, NODES = 0.25, 7  # Gauss's rule of so many points has full precision for norms so small


def sylvester_by_sign(A: Inexact[Array, "*batch m m"], B: Inexact[Array, "*batch n n"], C: Matrices) -> Matrices:
    """Y of A Y + Y B = C, where the eigenvalues of A and B are all on one side of the imaginary axis.

    sign [[A, C], [0, −B]] is [[I, 2Y], [0, −I]] (Roberts 1980), or its negative.
    """

    def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        A, B, C = carry
        to_A, to_B = _inverse(A), _inverse(B)
        s = _power_of_two(jnp.sqrt(jnp.hypot(_norm(to_A), _norm(to_B)) / jnp.hypot(_norm(A), _norm(B))))
        return (s * A + to_A / s) / 2, (s * B + to_B / s) / 2, (s * C + product(to_A, C, to_B) / s) / 2

    e = to_matrices(exponent(jnp.maximum(_largest(A), _largest(B))))
    A, B, C = meshes.fori_loop(STEPS, step, (times_power(A, -e), times_power(B, -e), times_power(C, -e)))
    side = jnp.sign(jnp.trace(A, axis1=-2, axis2=-1).real)
    converged = _is_identity(to_matrices(side) * A) & _is_identity(to_matrices(side) * B)
    return jnp.where(to_matrices(converged), to_matrices(side) * C / 2, jnp.nan)


def square_root(X: Square) -> Square:
    """The principal square root, by the scaled product form of Denman and Beavers' iteration (Cheng et al. 2001).

    It stops, for each matrix, a step after M is I to rounding: further ones would only round. (The derivative of M, for
    autodiff of the iteration, converges a step after M.)
    """

    def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        M, Y, settled = carry
        identity, to_M = identity_of(M), _inverse(M)
        root = _power_of_two(jnp.sqrt(jnp.sqrt(_norm(to_M) / _norm(M))))
        s = root * root
        Y = jnp.where(settled, Y, product(Y, root * identity + to_M / root) / 2)
        new = (identity + (s * M + to_M / s) / 2) / 2
        rounding = 4 * M.shape[-1] * jnp.finfo(M.dtype).eps
        return jnp.where(settled, M, new), Y, settled | (_norm(M - identity) <= rounding)

    half = size_exponent(X) // 2
    Z = times_power(X, to_matrices(-2 * half))
    M, Y, _ = meshes.fori_loop(STEPS, step, (Z, Z, to_matrices(half != half)))
    return jnp.where(to_matrices(_is_identity(M)), times_power(Y, to_matrices(half)), jnp.nan)


def logarithm(X: Square) -> Square:
    """The principal logarithm, by inverse scaling and squaring: 2ᵏ log X^(1/2ᵏ), the latter by Gauss's rule for

        log (I + Z) = ∫₀¹ Z (I + t Z)⁻¹ dt

    which is the diagonal Padé approximant of the logarithm. Z = X^(1/2ᵏ) − I is never a difference but the first time:
    R² − I = (R + I)(R − I) gives each from the one before (Al-Mohy 2012). No root is taken where Z is small already.
    """

    def step(_: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        R, Z, k = carry
        root = square_root(R)
        far = _norm(Z) > NEAR
        Z = jnp.where(far, product(_inverse(root + identity), Z), Z)
        return jnp.where(far, root, R), Z, k + far

    e, identity = exponent(np.sqrt(2) * _largest(X)), identity_of(X)  # 0 near I, where log X is small
    scaled = times_power(X, to_matrices(-e))
    start = scaled, scaled - identity, to_matrices(0 * e)
    _, Z, k = meshes.fori_loop(ROOTS, step, start, X)
    of_nodes = (*(1,) * (Z.ndim - 2), NODES, 1, 1)
    nodes, weights = (
        np.reshape(a, of_nodes).astype(real_dtype(Z.dtype)) for a in np.polynomial.legendre.leggauss(NODES)
    )
    each = _inverse(jnp.expand_dims(identity, -3) + (1 + nodes) / 2 * jnp.expand_dims(Z, -3))
    total = jnp.sum(weights / 2 * each, axis=-3)
    return times_power(product(Z, total), k) + to_matrices(e * np.log(2)).astype(Z.dtype) * identity


def _inverse(X: Square) -> Square:
    return meshes.along_batch(jnp.linalg.inv, X)


def _largest(X: Matrices) -> Float[Array, "*batch"]:
    return jnp.max(jnp.abs(X), axis=(-2, -1), initial=0)


def _norm(X: Matrices) -> Float[Array, "*batch 1 1"]:
    """The largest sum of a column: no square that overflows."""
    return jnp.max(jnp.sum(jnp.abs(X), axis=-2, keepdims=True), axis=-1, keepdims=True, initial=0)


def _power_of_two(s: Float[Array, "*batch 1 1"]) -> Float[Array, "*batch 1 1"]:
    """The nearest, so that scaling is exact, and 1 when the iteration is about to converge."""
    return times_power(jnp.ones_like(s), exponent(np.sqrt(2) * s))


def _is_identity(X: Square) -> Array:
    return _largest(X - identity_of(X)) < 1e-3
