"""Token shift: every feature is a mean of this token's and the token's before, by a learned weight."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import InputError, as_row, check_array, check_cotangent, check_residuals, check_shape, describe
from handgrad.factors import Hadamard
from handgrad.rule import Rule

__all__ = ["TokenShiftResiduals", "token_shift", "token_shift_backward", "token_shift_forward"]

Tokens = Float[Array, "batch tokens n"]


class TokenShiftResiduals(NamedTuple):
    """The arguments, by reference.

    Attributes:
      X, mu: for dμ and dX.
      x0: the row before the first, or None for zeros.
    """

    X: Tokens
    mu: Float[Array, " n"]
    x0: Float[Array, "batch n"] | None


def token_shift_forward(
    X: Tokens, mu: Float[Array, " n"], x0: Float[Array, "batch n"] | None = None
) -> tuple[Tokens, TokenShiftResiduals]:
    """y_t = (1 − μ) ∘ x_t + μ ∘ x_{t−1}.

    Args:
      mu: a parameter, the share of the token before in each feature.
      x0: the row before the first token, the last of an earlier call, say; None is zeros.
    Derivation: docs/derivations/sequences/token_shift.md (Peng et al. 2023)
    """
    where = "token_shift_forward"
    check_array(where, "X", X)
    if len(X.shape) != 3 or not X.shape[1]:
        raise InputError(f"{where}: X must have shape (batch, tokens, n), one token at least, got {describe(X)}")
    check_array(where, "mu", mu)
    check_shape(where, "mu", mu, X.shape[2:], "(one for each feature)")
    if x0 is not None:
        check_array(where, "x0", x0)
        check_shape(where, "x0", x0, (X.shape[0], X.shape[2]), "(one row for each example)")
    share = as_row(mu, 3).astype(_dtype(X, mu, x0))
    Y = (1 - share) * X + share * _before(X, x0)
    return Y, TokenShiftResiduals(X, mu, x0)


def token_shift_backward(
    residuals: TokenShiftResiduals, dY: Tokens
) -> tuple[Tokens, Hadamard, Float[Array, "batch n"] | None]:
    """Pull dY back through y_t = (1 − μ) ∘ x_t + μ ∘ x_{t−1}.

        dx_t = (1 − μ) ∘ dy_t + μ ∘ dy_{t+1}      dμ = (X_prev − X)ᵀ ∘ dYᵀ 1      dx_0 = μ ∘ dy_1

    Derivation: docs/derivations/sequences/token_shift.md
    """
    X, mu, x0 = check_residuals("token_shift_backward", residuals, TokenShiftResiduals)
    check_cotangent("token_shift_backward", dY, X.shape, _dtype(X, mu, x0))
    share = as_row(mu, 3).astype(dY.dtype)
    dX = (1 - share) * dY + share * jnp.concatenate([dY[:, 1:], jnp.zeros_like(dY[:, :1])], axis=1)
    dx0 = None if x0 is None else (as_row(mu, 2) * dY[:, 0]).astype(x0.dtype)
    return dX.astype(X.dtype), Hadamard(_before(X, x0) - X, dY, mu.dtype), dx0


token_shift = Rule(token_shift_forward, token_shift_backward)


def _before(X: Tokens, x0: Float[Array, "batch n"] | None) -> Tokens:
    """x_{t−1} in the place of x_t."""
    first = jnp.zeros_like(X[:, :1]) if x0 is None else jnp.expand_dims(x0, 1)
    return jnp.concatenate([first, X[:, :-1]], axis=1)


def _dtype(X: Tokens, mu: Array, x0: Array | None) -> jnp.dtype:
    return jnp.result_type(X, mu) if x0 is None else jnp.result_type(X, mu, x0)
