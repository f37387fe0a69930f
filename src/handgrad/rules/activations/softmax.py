"""The softmax family, along the last axis. Everything is computed in float32 at least and rounded once."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_cotangent, check_residuals
from handgrad.rule import Rule
from handgrad.rules._softmax import if_any, rest_below
from handgrad.rules._wide import wide

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

Rows = Float[Array, "batch *rest n"]
Sums = Float[Array, "batch *rest"]


class SoftmaxResiduals(NamedTuple):
    """P: the output, which determines the whole Jacobian diag(p) − p pᵀ; largest: of each row of it."""

    P: Rows
    largest: Float[Array, "batch *rest 1"]


def softmax_forward(X: Rows) -> tuple[Rows, SoftmaxResiduals]:
    """P = eˣ / Σ eˣ along the last axis, without overflow for any finite X.

    Derivation: docs/derivations/activations/softmax.md
    """
    check_array("softmax_forward", "X", X, min_ndim=2, filled=True)
    (Xw,) = wide(X)
    E = jnp.exp(Xw - jnp.max(Xw, axis=-1, keepdims=True))
    total = jnp.sum(E, axis=-1, keepdims=True)
    P = (E / total).astype(X.dtype)
    return P, SoftmaxResiduals(P, 1 / total)


def softmax_backward(residuals: SoftmaxResiduals, dP: Rows) -> tuple[Rows]:
    """Pull dP back through P = softmax(X).

        dX = P ∘ (dP − ⟨P, dP⟩ 1ᵀ)      ⟨·,·⟩ row by row

    Derivation: docs/derivations/activations/softmax.md
    """
    P, largest = check_residuals("softmax_backward", residuals, SoftmaxResiduals)
    check_cotangent("softmax_backward", dP, P.shape, P.dtype, name="dP", of="P")
    # In a saturated row dP − mean is small at the largest P, and the mean's rounding is not; of dP − mean, which is
    # exact there, the mean is that rounding.
    P, dP = wide(P, dP)
    mean = jnp.sum(P * dP, axis=-1, keepdims=True)
    sure = largest > 0.75
    missed = if_any(sure, lambda: jnp.sum(P * (dP - mean), axis=-1, keepdims=True), lambda: jnp.zeros_like(mean))
    return ((P * (dP - mean - missed)).astype(residuals.P.dtype),)


softmax = Rule(softmax_forward, softmax_backward)


class LogSoftmaxResiduals(NamedTuple):
    """Of the softmax P = E / (1 + rest).

    Attributes:
      E: e^(X − max X).
      rest: Σ E − 1 of each row, the sum without its largest element, in at least float32.
    """

    E: Rows
    rest: Float[Array, "batch *rest 1"]


def log_softmax_forward(X: Rows) -> tuple[Rows, LogSoftmaxResiduals]:
    """L = X − log Σ eˣ along the last axis, without overflow for any finite X.

    Derivation: docs/derivations/activations/softmax.md
    """
    check_array("log_softmax_forward", "X", X, min_ndim=2, filled=True)
    (Xw,) = wide(X)
    M = jnp.max(Xw, axis=-1, keepdims=True)
    D, rest = Xw - M, rest_below(Xw, M)
    return (D - jnp.log1p(rest)).astype(X.dtype), LogSoftmaxResiduals(jnp.exp(D).astype(X.dtype), rest)


def log_softmax_backward(residuals: LogSoftmaxResiduals, dL: Rows) -> tuple[Rows]:
    """Pull dL back through L = log softmax(X).

        dX = dL − P ∘ (dL 1) 1ᵀ = (1 − P) ∘ dL − P ∘ ((dL 1) 1ᵀ − dL)      P = E / (1 + rest)

    Derivation: docs/derivations/activations/softmax.md
    """
    E, rest = check_residuals("log_softmax_backward", residuals, LogSoftmaxResiduals)
    check_cotangent("log_softmax_backward", dL, E.shape, E.dtype, name="dL", of="L")
    E, dL, rest = wide(E, dL, rest)
    total, share = jnp.sum(dL, axis=-1, keepdims=True), 1 / (1 + rest)
    sure = jnp.where(rest < 0.5, 0.75, 2) < E  # the largest element of a row that is sure of it: 1 − P = rest · share
    dX = jnp.where(sure, rest * share * dL - share * (total - dL), dL - E * (share * total))
    return (dX.astype(residuals.E.dtype),)


log_softmax = Rule(log_softmax_forward, log_softmax_backward)


class LogsumexpResiduals(NamedTuple):
    """P: softmax of the input. e^(X − Y) would need no new array, but loses X's last digits where Y is large."""

    P: Rows


def logsumexp_forward(X: Rows) -> tuple[Sums, LogsumexpResiduals]:
    """Y = log Σ eˣ along the last axis, without overflow for any finite X.

    Derivation: docs/derivations/activations/softmax.md
    """
    check_array("logsumexp_forward", "X", X, min_ndim=2, filled=True)
    (Xw,) = wide(X)
    M = jnp.max(Xw, axis=-1, keepdims=True)
    E = jnp.exp(Xw - M)
    S = jnp.sum(E, axis=-1, keepdims=True)
    Y = jnp.squeeze(M + jnp.log(S), -1)
    return Y.astype(X.dtype), LogsumexpResiduals((E / S).astype(X.dtype))


def logsumexp_backward(residuals: LogsumexpResiduals, dY: Sums) -> tuple[Rows]:
    """Pull dY back through Y = log Σ eˣ.

        dX = P ∘ dY 1ᵀ      P = softmax(X)

    Derivation: docs/derivations/activations/softmax.md
    """
    (P,) = check_residuals("logsumexp_backward", residuals, LogsumexpResiduals)
    check_cotangent("logsumexp_backward", dY, P.shape[:-1], P.dtype)
    return (P * jnp.expand_dims(dY, -1),)


logsumexp = Rule(logsumexp_forward, logsumexp_backward)
