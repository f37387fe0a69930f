"""Functions of a symmetric matrix through its eigenvalues: square root, logarithm, exponential, powers, and any f."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad.checks import InputError, check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.linear_algebra._matrices import (
    Like,
    Square,
    adjoint,
    check_square,
    no_columns,
    product,
    rounding_of,
    symmetric,
)

__all__ = [
    "SymmetricFunctionResiduals",
    "symmetric_function",
    "symmetric_function_backward",
    "symmetric_function_forward",
]

Elementwise = Callable[[Array], Array]
Function = Literal["sqrt", "log", "exp"] | float | tuple[Elementwise, Elementwise]

NAMED: dict[str, tuple[Elementwise, Elementwise]] = {
    "sqrt": (jnp.sqrt, lambda s: 0.5 / jnp.sqrt(s)),
    "log": (jnp.log, lambda s: 1 / s),
    "exp": (jnp.exp, jnp.exp),
}


class SymmetricFunctionResiduals(NamedTuple):
    """The decomposition: S and V, in float32 at least; like: X's dtype."""

    S: Float[Array, "*batch n"]
    V: Square
    like: Like


def symmetric_function_forward(X: Square, *, f: Function) -> tuple[Square, SymmetricFunctionResiduals]:
    """Y = f(X) = V diag(f(s)) Vᵀ, of X = V diag(s) Vᵀ.

    X is read as (X + Xᵀ) / 2, and as (X + Xᴴ) / 2 where it is complex.

    Args:
      f: "sqrt", "log", "exp"; a number p for the power Xᵖ, −0.5 for X^(−½); or the pair (f, f′) of any function, both
        elementwise, in jax.numpy. For a square root and positive powers that are not whole, eigenvalues that are 0 to
        rounding are 0.
    Derivation: docs/derivations/linear_algebra/symmetric_functions.md (Daleckii and Krein 1965)
    """
    check_square("symmetric_function_forward", "X", X)
    value, _ = _pair("symmetric_function_forward", f)
    S, V = jnp.linalg.eigh(*wide(X), symmetrize_input=True)
    if f == "sqrt" or (isinstance(f, int | float) and f > 0 and f != int(f)):
        S = jnp.where(jnp.abs(S) <= rounding_of(S), 0, S)
    Y = product(V * jnp.expand_dims(value(S), -2), adjoint(V))
    return symmetric(Y).astype(X.dtype), SymmetricFunctionResiduals(S, V, no_columns(X))


def symmetric_function_backward(residuals: SymmetricFunctionResiduals, dY: Square, *, f: Function) -> tuple[Square]:
    """Pull dY back through Y = f(X).

        dX = ½ (M + Mᵀ),  M = V (F ∘ (Vᵀ dY V)) Vᵀ      F_ij = (f(s_i) − f(s_j)) / (s_i − s_j), F_ii = f′(s_i)

    F is a mean of f′ over the interval between two eigenvalues, and is computed as that where they are close: it is
    right at equal eigenvalues and loses no digits near them. Where f′ is infinite at an eigenvalue, as a root's at 0,
    F is 0 between its equals.

    Derivation: docs/derivations/linear_algebra/symmetric_functions.md
    """
    where = "symmetric_function_backward"
    S, V, like = check_residuals(where, residuals, SymmetricFunctionResiduals)
    check_cotangent(where, dY, V.shape, like.dtype)
    F = _divided_differences(*_pair(where, f), S)
    N = product(adjoint(V), wide(dY)[0].conj(), V)
    M = product(V, F * N, adjoint(V))
    return (symmetric(M).conj().astype(like.dtype),)


symmetric_function = Rule(symmetric_function_forward, symmetric_function_backward)


def _pair(where: str, f: Function) -> tuple[Elementwise, Elementwise]:
    """f and f′."""
    if isinstance(f, tuple) and len(f) == 2 and all(map(callable, f)):
        return f
    if isinstance(f, int | float) and not isinstance(f, bool) and math.isfinite(f):
        if f == 0:  # else 0 · 0⁻¹
            return jnp.ones_like, jnp.zeros_like
        return lambda s: s**f, lambda s: f * s ** (f - 1)
    if isinstance(f, str) and f in NAMED:
        return NAMED[f]
    raise InputError(f"{where}: f must be 'sqrt', 'log', 'exp', a number or a pair (f, f′), got {f!r}")


def _divided_differences(f: Elementwise, slope: Elementwise, S: Float[Array, "*batch n"]) -> Float[Array, "*batch n n"]:
    """F_ij = (f(s_i) − f(s_j)) / (s_i − s_j), and f′(s_i) where they are equal.

    The quotient loses digits as the two meet. F_ij is also the mean of f′ between them, by Gauss's rule, which is exact
    as they meet: it is taken where its rules of 4 and 6 points agree to what the quotient has lost.
    """
    row, column = jnp.expand_dims(S, -2), jnp.expand_dims(S, -1)
    gap, values = row - column, f(S)
    apart = jnp.where(gap == 0, 1, gap)
    at_row, at_column = jnp.expand_dims(values, -2), jnp.expand_dims(values, -1)
    quotient = (at_row - at_column) / apart
    lost = jnp.finfo(S.dtype).eps * (jnp.abs(at_row) + jnp.abs(at_column)) / jnp.abs(apart)

    def mean(points: int) -> Array:
        nodes, weights = np.polynomial.legendre.leggauss(points)
        each = zip(nodes.tolist(), weights.tolist(), strict=True)
        return sum((w / 2 * slope(column + (1 + x) / 2 * gap) for x, w in each), jnp.zeros_like(gap))

    close = mean(6)
    F = jnp.where(jnp.abs(close - mean(4)) <= lost, close, quotient)
    return jnp.where(gap == 0, jnp.where(jnp.isinf(close), 0, close), F)
