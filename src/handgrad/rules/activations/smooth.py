"""Smooth monotone activations, element by element. Each keeps its output: the slope is a short function of it.

Where the output of sigmoid or tanh rounds to 1, it tells nothing of the slope; residuals="recompute" keeps the input,
which does. Values and slopes are computed in float32 at least and rounded once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_choice, check_cotangent, check_residuals
from handgrad.rules._elementwise import sigmoids, wide
from handgrad.rules.rule import Rule

__all__ = [
    "IdentityResiduals",
    "SigmoidResiduals",
    "SoftplusResiduals",
    "TanhResiduals",
    "identity",
    "identity_backward",
    "identity_forward",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_forward",
    "softplus",
    "softplus_backward",
    "softplus_forward",
    "tanh",
    "tanh_backward",
    "tanh_forward",
]

Array = jax.Array

POLICIES = ("save", "recompute")


class IdentityResiduals(NamedTuple):
    """Y: (batch, ...) output, for its shape and dtype alone: its values are never read."""

    Y: Array


def identity_forward(X: Array) -> tuple[Array, IdentityResiduals]:
    """Y = X.

    Args:
      X: (batch, ...) floating point.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("identity_forward", "X", X)
    return X, IdentityResiduals(X)


def identity_backward(residuals: IdentityResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = X.

        dX = dY

    Args:
      residuals: IdentityResiduals of identity_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/smooth.md
    """
    (Y,) = check_residuals("identity_backward", residuals, IdentityResiduals)
    check_cotangent("identity_backward", dY, Y.shape, Y.dtype)
    return (dY,)


identity = Rule(identity_forward, identity_backward)


class SigmoidResiduals(NamedTuple):
    """One of the two.

    Attributes:
      Y: (batch, ...) output, where it was saved: the slope is Y (1 − Y).
      X: (batch, ...) input, where the slope is computed again, σ(X) σ(−X).
    """

    Y: Any
    X: Any


def sigmoid_forward(X: Array, *, residuals: str = "save") -> tuple[Array, SigmoidResiduals]:
    """Y = 1 / (1 + e⁻ˣ), without overflow for any X.

    Args:
      X: (batch, ...) floating point.
      residuals: "save" keeps Y, which costs nothing before a linear, but whose slope is off by a rounding of Y, as in
        JAX and PyTorch; "recompute" keeps X, of which it has every digit.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("sigmoid_forward", "X", X)
    check_choice("sigmoid_forward", "residuals", residuals, POLICIES)
    Y = jax.lax.logistic(wide(X)).astype(X.dtype)
    return Y, SigmoidResiduals(Y, None) if residuals == "save" else SigmoidResiduals(None, X)


def sigmoid_backward(residuals: SigmoidResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = σ(X).

        dX = dY ∘ Y ∘ (1 − Y) = dY ∘ σ(X) ∘ σ(−X)

    Args:
      residuals: SigmoidResiduals of sigmoid_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/smooth.md
    """
    Y, X = check_residuals("sigmoid_backward", residuals, SigmoidResiduals)
    kept = X if Y is None else Y
    check_cotangent("sigmoid_backward", dY, kept.shape, kept.dtype)
    S, complement = sigmoids(wide(X)) if Y is None else (wide(Y), 1 - wide(Y))
    return ((dY * S * complement).astype(dY.dtype),)


sigmoid = Rule(sigmoid_forward, sigmoid_backward)


class TanhResiduals(NamedTuple):
    """One of the two.

    Attributes:
      Y: (batch, ...) output, where it was saved: the slope is 1 − Y².
      X: (batch, ...) input, where the slope is computed again, 4 σ(2X) σ(−2X).
    """

    Y: Any
    X: Any


def tanh_forward(X: Array, *, residuals: str = "save") -> tuple[Array, TanhResiduals]:
    """Y = tanh(X).

    Args:
      X: (batch, ...) floating point.
      residuals: "save" keeps Y, which costs nothing before a linear, but whose slope is off by a rounding of Y, as in
        JAX and PyTorch; "recompute" keeps X, of which it has every digit.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("tanh_forward", "X", X)
    check_choice("tanh_forward", "residuals", residuals, POLICIES)
    Y = jnp.tanh(wide(X)).astype(X.dtype)
    return Y, TanhResiduals(Y, None) if residuals == "save" else TanhResiduals(None, X)


def tanh_backward(residuals: TanhResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = tanh(X).

        dX = dY ∘ (1 − Y) ∘ (1 + Y) = 4 dY ∘ σ(2X) ∘ σ(−2X)

    Args:
      residuals: TanhResiduals of tanh_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/smooth.md
    """
    Y, X = check_residuals("tanh_backward", residuals, TanhResiduals)
    kept = X if Y is None else Y
    check_cotangent("tanh_backward", dY, kept.shape, kept.dtype)
    kept = wide(kept)
    one, other = (2 * S for S in sigmoids(2 * kept)) if Y is None else (1 + kept, 1 - kept)
    return ((dY * one * other).astype(dY.dtype),)


tanh = Rule(tanh_forward, tanh_backward)


class SoftplusResiduals(NamedTuple):
    """Y: (batch, ...) output: the slope σ(X) is 1 − e⁻ʸ."""

    Y: Array


def softplus_forward(X: Array) -> tuple[Array, SoftplusResiduals]:
    """Y = log(1 + eˣ), without overflow for any X.

    Args:
      X: (batch, ...) floating point.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point.
    Derivation: docs/derivations/activations/smooth.md
    """
    check_array("softplus_forward", "X", X)
    Y = jnp.logaddexp(wide(X), 0).astype(X.dtype)
    return Y, SoftplusResiduals(Y)


def softplus_backward(residuals: SoftplusResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = log(1 + eˣ).

        dX = dY ∘ (1 − e⁻ʸ)

    Args:
      residuals: SoftplusResiduals of softplus_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/smooth.md
    """
    (Y,) = check_residuals("softplus_backward", residuals, SoftplusResiduals)
    check_cotangent("softplus_backward", dY, Y.shape, Y.dtype)
    return ((dY * -jnp.expm1(-wide(Y))).astype(Y.dtype),)


softplus = Rule(softplus_forward, softplus_backward)
