"""Activations of the form Y = X ∘ gate(X).

Neither Y nor the gate alone tells the slope, so each keeps one array of X's size: X itself, and the backward pass
computes the gate again (residuals="recompute"), or the slope, and the forward pass computes it at once ("save").
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.rules.activations import softplus_forward
from handgrad.shapes import check_array, check_choice, check_cotangent, check_residuals

__all__ = [
    "GeluResiduals",
    "MishResiduals",
    "SiluResiduals",
    "gelu_backward",
    "gelu_forward",
    "mish_backward",
    "mish_forward",
    "silu_backward",
    "silu_forward",
]

Array = jax.Array

POLICIES = ("recompute", "save")
SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)


class SiluResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: (batch, ...) input, where σ(X) is computed again.
      slope: (batch, ...) dY/dX, where it was saved.
    """

    X: Any
    slope: Any


def silu_forward(X: Array, *, residuals: str = "recompute") -> tuple[Array, SiluResiduals]:
    """Y = X ∘ σ(X), also called swish.

    Args:
      X: (batch, ...) floating point.
      residuals: "recompute" keeps X, "save" the slope.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/self_gated.md (Ramachandran et al. 2017)
    """
    check_array("silu_forward", "X", X)
    check_choice("silu_forward", "residuals", residuals, POLICIES)
    Y = X * jax.lax.logistic(X)
    return Y, SiluResiduals(X, None) if residuals == "recompute" else SiluResiduals(None, _silu_slope(X))


def silu_backward(residuals: SiluResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = X ∘ S with S = σ(X).

        dX = dY ∘ S ∘ (1 + X ∘ (1 − S))

    Args:
      residuals: SiluResiduals of silu_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/self_gated.md
    """
    X, slope = check_residuals("silu_backward", residuals, SiluResiduals)
    slope = _silu_slope(X) if slope is None else slope
    check_cotangent("silu_backward", dY, slope.shape, slope.dtype)
    return (dY * slope,)


def _silu_slope(X: Array) -> Array:
    S = jax.lax.logistic(X)
    return S * (1 + X * (1 - S))


class MishResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: (batch, ...) input, where tanh and σ are computed again.
      slope: (batch, ...) dY/dX, where it was saved.
    """

    X: Any
    slope: Any


def mish_forward(X: Array, *, residuals: str = "recompute") -> tuple[Array, MishResiduals]:
    """Y = X ∘ tanh(softplus(X)).

    Args:
      X: (batch, ...) floating point.
      residuals: "recompute" keeps X, "save" the slope.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/self_gated.md (Misra 2019)
    """
    check_array("mish_forward", "X", X)
    check_choice("mish_forward", "residuals", residuals, POLICIES)
    Y = X * jnp.tanh(softplus_forward(X)[0])
    return Y, MishResiduals(X, None) if residuals == "recompute" else MishResiduals(None, _mish_slope(X))


def mish_backward(residuals: MishResiduals, dY: Array) -> tuple[Array]:
    """Pull dY back through Y = X ∘ T with T = tanh(softplus(X)).

        dX = dY ∘ (T + X ∘ (1 − T) ∘ (1 + T) ∘ σ(X))

    Args:
      residuals: MishResiduals of mish_forward.
      dY: like X, cotangent of Y.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/self_gated.md
    """
    X, slope = check_residuals("mish_backward", residuals, MishResiduals)
    slope = _mish_slope(X) if slope is None else slope
    check_cotangent("mish_backward", dY, slope.shape, slope.dtype)
    return (dY * slope,)


def _mish_slope(X: Array) -> Array:
    T = jnp.tanh(softplus_forward(X)[0])
    return T + X * (1 - T) * (1 + T) * jax.lax.logistic(X)


class GeluResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: (batch, ...) input, where Φ or tanh are computed again.
      slope: (batch, ...) dY/dX, where it was saved.
    """

    X: Any
    slope: Any


def gelu_forward(X: Array, *, approximate: bool = False, residuals: str = "recompute") -> tuple[Array, GeluResiduals]:
    """Y = X ∘ Φ(X), Φ the normal distribution function, or its tanh form.

    Args:
      X: (batch, ...) floating point.
      approximate: False for Φ(x) = ½ erfc(−x/√2), True for Φ(x) ≈ ½ (1 + tanh u), u = √(2/π) (x + 0.044715 x³).
      residuals: "recompute" keeps X, "save" the slope.
    Returns:
      Y like X; residuals.
    Raises:
      InputError: X is not floating point; residuals is neither of the two.
    Derivation: docs/derivations/self_gated.md (Hendrycks and Gimpel 2016)
    """
    check_array("gelu_forward", "X", X)
    check_choice("gelu_forward", "residuals", residuals, POLICIES)
    distribution, density = _normal_distribution(X, approximate)
    Y = X * distribution
    return Y, GeluResiduals(X, None) if residuals == "recompute" else GeluResiduals(None, distribution + X * density)


def gelu_backward(residuals: GeluResiduals, dY: Array, *, approximate: bool = False) -> tuple[Array]:
    """Pull dY back through Y = X ∘ Φ(X), φ = Φ′.

        dX = dY ∘ (Φ + X ∘ φ)

    Args:
      residuals: GeluResiduals of gelu_forward.
      dY: like X, cotangent of Y.
      approximate: the forward's.
    Returns:
      dX like X.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/self_gated.md
    """
    X, slope = check_residuals("gelu_backward", residuals, GeluResiduals)
    if X is not None:
        distribution, density = _normal_distribution(X, approximate)
        slope = distribution + X * density
    check_cotangent("gelu_backward", dY, slope.shape, slope.dtype)
    return (dY * slope,)


def _normal_distribution(X: Array, approximate: bool) -> tuple[Array, Array]:
    """Φ(X) and its slope φ(X), exact or of the tanh form."""
    if not approximate:
        return jax.lax.erfc(-X * SQRT_HALF) / 2, jnp.exp(-(X**2) / 2) * (SQRT_2_OVER_PI / 2)
    T = jnp.tanh(SQRT_2_OVER_PI * (X + 0.044715 * X**3))
    return (1 + T) / 2, (1 - T) * (1 + T) / 2 * SQRT_2_OVER_PI * (1 + 3 * 0.044715 * X**2)
