"""The softmax family, along the last axis. Everything is computed in float32 at least and rounded once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_cotangent, check_residuals
from handgrad.rules._elementwise import wide
from handgrad.rules._softmax import rest_of
from handgrad.rules.rule import Rule

__all__ = [
    "LogSoftmaxResiduals",
    "LogsumexpResiduals",
    "SoftmaxResiduals",
    "log_softmax",
    "log_softmax_backward",
    "log_softmax_forward",
    "logsumexp",
    "logsumexp_backward",
    "logsumexp_forward",
    "softmax",
    "softmax_backward",
    "softmax_forward",
]

Array = jax.Array


class SoftmaxResiduals(NamedTuple):
    """P: (batch, ..., n) output, which the whole Jacobian diag(p) − p pᵀ is made of."""

    P: Array


def softmax_forward(X: Array) -> tuple[Array, SoftmaxResiduals]:
    """P = eˣ / Σ eˣ along the last axis, without overflow for any finite X.

    Args:
      X: (batch, ..., n) floating point.
    Returns:
      P like X, each row sums to 1; residuals.
    Raises:
      InputError: X is not floating point or has no (batch, ..., n).
    Derivation: docs/derivations/activations/softmax.md
    """
    check_array("softmax_forward", "X", X, min_ndim=2)
    Xw = wide(X)
    E = jnp.exp(Xw - jnp.max(Xw, axis=-1, keepdims=True))
    P = (E / jnp.sum(E, axis=-1, keepdims=True)).astype(X.dtype)
    return P, SoftmaxResiduals(P)


def softmax_backward(residuals: SoftmaxResiduals, dP: Array) -> tuple[Array]:
    """Pull dP back through P = softmax(X).

        dX = P ∘ (dP − ⟨P, dP⟩ 1ᵀ)      ⟨·,·⟩ row by row

    Args:
      residuals: SoftmaxResiduals of softmax_forward.
      dP: (batch, ..., n) cotangent of P.
    Returns:
      dX (batch, ..., n).
    Raises:
      InputError: residuals of another rule; dP not of P's shape and dtype.
    Derivation: docs/derivations/activations/softmax.md
    """
    (P,) = check_residuals("softmax_backward", residuals, SoftmaxResiduals)
    check_cotangent("softmax_backward", dP, P.shape, P.dtype, name="dP", of="P")
    # A row of P sums to 1, so a row of dP may be shifted: by an element where P is largest, so that a saturated row
    # keeps its digits. By a share of the largest, since a compiler that computes P twice may round it in two ways.
    P, dP = wide(P), wide(dP)
    large = jnp.max(P, axis=-1, keepdims=True) < P / 0.75
    dP = dP - jnp.max(jnp.where(large, dP, -jnp.inf), axis=-1, keepdims=True)
    return ((P * (dP - jnp.sum(P * dP, axis=-1, keepdims=True))).astype(residuals.P.dtype),)


softmax = Rule(softmax_forward, softmax_backward)


class LogSoftmaxResiduals(NamedTuple):
    """L: (batch, ..., n) output; e^L is the softmax."""

    L: Array


def log_softmax_forward(X: Array) -> tuple[Array, LogSoftmaxResiduals]:
    """L = X − log Σ eˣ along the last axis, without overflow for any finite X.

    Args:
      X: (batch, ..., n) floating point.
    Returns:
      L like X; residuals.
    Raises:
      InputError: X is not floating point or has no (batch, ..., n).
    Derivation: docs/derivations/activations/softmax.md
    """
    check_array("log_softmax_forward", "X", X, min_ndim=2)
    Xw = wide(X)
    M = jnp.max(Xw, axis=-1, keepdims=True)
    D = Xw - M
    L = (D - jnp.log1p(rest_of(D))).astype(X.dtype)
    return L, LogSoftmaxResiduals(L)


def log_softmax_backward(residuals: LogSoftmaxResiduals, dL: Array) -> tuple[Array]:
    """Pull dL back through L = log softmax(X).

        dX = dL − P ∘ (dL 1) 1ᵀ = (1 − P) ∘ dL − P ∘ ((dL 1) 1ᵀ − dL)      P = e^L

    Args:
      residuals: LogSoftmaxResiduals of log_softmax_forward.
      dL: (batch, ..., n) cotangent of L.
    Returns:
      dX (batch, ..., n).
    Raises:
      InputError: residuals of another rule; dL not of L's shape and dtype.
    Derivation: docs/derivations/activations/softmax.md
    """
    (L,) = check_residuals("log_softmax_backward", residuals, LogSoftmaxResiduals)
    check_cotangent("log_softmax_backward", dL, L.shape, L.dtype, name="dL", of="L")
    L, dL = wide(L), wide(dL)
    dX = -jnp.expm1(L) * dL - jnp.exp(L) * (jnp.sum(dL, axis=-1, keepdims=True) - dL)
    return (dX.astype(residuals.L.dtype),)


log_softmax = Rule(log_softmax_forward, log_softmax_backward)


class LogsumexpResiduals(NamedTuple):
    """P: (batch, ..., n) softmax of the input. e^(X − Y) would need no new array, but loses X's last digits to Y's
    size."""

    P: Array


def logsumexp_forward(X: Array) -> tuple[Array, LogsumexpResiduals]:
    """Y = log Σ eˣ along the last axis, without overflow for any finite X.

    Args:
      X: (batch, ..., n) floating point.
    Returns:
      Y (batch, ...); residuals.
    Raises:
      InputError: X is not floating point or has no (batch, ..., n).
    Derivation: docs/derivations/activations/softmax.md
    """
    check_array("logsumexp_forward", "X", X, min_ndim=2)
    Xw = wide(X)
    M = jnp.max(Xw, axis=-1, keepdims=True)
    E = jnp.exp(Xw - M)
    S = jnp.sum(E, axis=-1, keepdims=True)
    Y = jnp.squeeze(M + jnp.log(S), -1)
    return Y.astype(X.dtype), LogsumexpResiduals((E / S).astype(X.dtype))


def logsumexp_backward(residuals: LogsumexpResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = log Σ eˣ.

        dX = P ∘ dY 1ᵀ      P = softmax(X)

    Args:
      residuals: LogsumexpResiduals of logsumexp_forward.
      dY: (batch, ...) cotangent of Y.
    Returns:
      dX (batch, ..., n).
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/softmax.md
    """
    (P,) = check_residuals("logsumexp_backward", residuals, LogsumexpResiduals)
    check_cotangent("logsumexp_backward", dY, P.shape[:-1], P.dtype)
    return (P * jnp.expand_dims(dY, -1),)


logsumexp = Rule(logsumexp_forward, logsumexp_backward)
