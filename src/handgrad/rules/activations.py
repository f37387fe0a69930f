"""Smooth monotone activations, element by element. Each keeps its output: the slope is a short function of it.

Both are computed in float32 at least and rounded once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from handgrad.rules._elementwise import wide
from handgrad.shapes import check_array, check_cotangent, check_residuals

__all__ = [
    "IdentityResiduals",
    "SigmoidResiduals",
    "SoftplusResiduals",
    "TanhResiduals",
    "identity_backward",
    "identity_forward",
    "sigmoid_backward",
    "sigmoid_forward",
    "softplus_backward",
    "softplus_forward",
    "tanh_backward",
    "tanh_forward",
]

Array = jax.Array


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
    Derivation: docs/derivations/activations.md
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
    Derivation: docs/derivations/activations.md
    """
    (Y,) = check_residuals("identity_backward", residuals, IdentityResiduals)
    check_cotangent("identity_backward", dY, Y.shape, Y.dtype)
    return (dY,)


class SigmoidResiduals(NamedTuple):
    """Y: (batch, ...) output, which the slope Y (1 − Y) is made of."""

    Y: Array


def sigmoid_forward(X: Array) -> tuple[Array, SigmoidResiduals]:
    """Y = 1 / (1 + e⁻ˣ), without overflow for any X.

    Args:
      X: (batch, ...) floating point.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point.
    Derivation: docs/derivations/activations.md
    """
    check_array("sigmoid_forward", "X", X)
    Y = jax.lax.logistic(wide(X)).astype(X.dtype)
    return Y, SigmoidResiduals(Y)


def sigmoid_backward(residuals: SigmoidResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = σ(X).

        dX = dY ∘ Y ∘ (1 − Y)

    Args:
      residuals: SigmoidResiduals of sigmoid_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations.md
    """
    (Y,) = check_residuals("sigmoid_backward", residuals, SigmoidResiduals)
    check_cotangent("sigmoid_backward", dY, Y.shape, Y.dtype)
    Yw = wide(Y)
    return ((dY * Yw * (1 - Yw)).astype(Y.dtype),)


class TanhResiduals(NamedTuple):
    """Y: (batch, ...) output, which the slope 1 − Y² is made of."""

    Y: Array


def tanh_forward(X: Array) -> tuple[Array, TanhResiduals]:
    """Y = tanh(X).

    Args:
      X: (batch, ...) floating point.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point.
    Derivation: docs/derivations/activations.md
    """
    check_array("tanh_forward", "X", X)
    Y = jnp.tanh(wide(X)).astype(X.dtype)
    return Y, TanhResiduals(Y)


def tanh_backward(residuals: TanhResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = tanh(X).

        dX = dY ∘ (1 − Y) ∘ (1 + Y)

    Args:
      residuals: TanhResiduals of tanh_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations.md
    """
    (Y,) = check_residuals("tanh_backward", residuals, TanhResiduals)
    check_cotangent("tanh_backward", dY, Y.shape, Y.dtype)
    Yw = wide(Y)
    return ((dY * (1 - Yw) * (1 + Yw)).astype(Y.dtype),)


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
    Derivation: docs/derivations/activations.md
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
    Derivation: docs/derivations/activations.md
    """
    (Y,) = check_residuals("softplus_backward", residuals, SoftplusResiduals)
    check_cotangent("softplus_backward", dY, Y.shape, Y.dtype)
    return ((dY * -jnp.expm1(-wide(Y))).astype(Y.dtype),)
