"""Activations of the form Y = X ∘ gate(X).

Neither Y nor the gate alone determines the slope, so each keeps one array of X's size: the slope, which the forward
pass computes at once (residuals="save"), or X itself, and the backward pass recomputes the gate ("recompute").
Values and slopes are computed in float32 at least and rounded once.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_choice, check_cotangent, check_flags, check_residuals
from handgrad.rule import Rule
from handgrad.rules._wide import wide

__all__ = [
    "GeluResiduals",
    "MishResiduals",
    "SiluResiduals",
    "gelu",
    "gelu_backward",
    "gelu_forward",
    "mish",
    "mish_backward",
    "mish_forward",
    "silu",
    "silu_backward",
    "silu_forward",
]

Elements = Float[Array, "*shape"]
Policy = Literal["save", "recompute"]
POLICIES = ("save", "recompute")
SQRT_HALF = math.sqrt(0.5)
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
TWO_U, TWO_U_CUBIC = 2 * SQRT_2_OVER_PI, 2 * SQRT_2_OVER_PI * 0.044715  # 2u of the tanh form, as a polynomial in x
BEYOND = 32.0  # where the tanh form's gate is 0 or 1 in every dtype


class SiluResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: input, where σ(X) is recomputed.
      slope: dY/dX, where it was saved.
    """

    X: Elements | None
    slope: Elements | None


def silu_forward(X: Elements, *, residuals: Policy = "save") -> tuple[Elements, SiluResiduals]:
    """Y = X ∘ σ(X), also called swish.

    Args:
      residuals: "save" keeps the slope, "recompute" X.
    Derivation: docs/derivations/activations/self_gated.md (Ramachandran et al. 2017)
    """
    check_array("silu_forward", "X", X)
    check_choice("silu_forward", "residuals", residuals, POLICIES)
    Y, slope = silu_with_slope(X)
    return Y, SiluResiduals(X, None) if residuals == "recompute" else SiluResiduals(None, slope)


def silu_backward(residuals: SiluResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = X ∘ S with S = σ(X).

        dX = dY ∘ S ∘ (1 + X ∘ (1 − S))

    Derivation: docs/derivations/activations/self_gated.md
    """
    kept = check_residuals("silu_backward", residuals, SiluResiduals)
    return (_pull_back("silu_backward", silu_with_slope, *kept, dY),)


silu = Rule(silu_forward, silu_backward)


def silu_with_slope(X: Elements) -> tuple[Elements, Elements]:
    """Y and its slope, in X's dtype."""
    (Xw,) = wide(X)
    S = jax.lax.logistic(Xw)
    return (Xw * S).astype(X.dtype), (S * (1 + Xw * (1 - S))).astype(X.dtype)


class MishResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: input, where the exponential is recomputed.
      slope: dY/dX, where it was saved.
    """

    X: Elements | None
    slope: Elements | None


def mish_forward(X: Elements, *, residuals: Policy = "save") -> tuple[Elements, MishResiduals]:
    """Y = X ∘ tanh(softplus(X)).

    Args:
      residuals: "save" keeps the slope, "recompute" X.
    Derivation: docs/derivations/activations/self_gated.md (Misra 2019)
    """
    check_array("mish_forward", "X", X)
    check_choice("mish_forward", "residuals", residuals, POLICIES)
    Y, slope = mish_with_slope(X)
    return Y, MishResiduals(X, None) if residuals == "recompute" else MishResiduals(None, slope)


def mish_backward(residuals: MishResiduals, dY: Elements) -> tuple[Elements]:
    """Pull dY back through Y = X ∘ T with T = tanh(softplus(X)).

        dX = dY ∘ (T + X ∘ T′)      T = (n² + 2n) / (n² + 2n + 2),  T′ = 4n (n + 1) / (n² + 2n + 2)²,  n = eˣ

    Derivation: docs/derivations/activations/self_gated.md
    """
    kept = check_residuals("mish_backward", residuals, MishResiduals)
    return (_pull_back("mish_backward", mish_with_slope, *kept, dY),)


mish = Rule(mish_forward, mish_backward)


def mish_with_slope(X: Elements) -> tuple[Elements, Elements]:
    """Y and its slope, in X's dtype, from E = e^(−|x|): T = above / (above + below), divided by n² for x ≥ 0."""
    (Xw,) = wide(X)
    E = jnp.exp(jnp.where(Xw < 0, Xw, -Xw))
    above = jnp.where(Xw < 0, E * (E + 2), 1 + 2 * E)
    below = jnp.where(Xw < 0, 2, 2 * E * E)
    share = 1 / (above + below)
    slope = above + Xw * (2 * below * (1 + E) * jnp.where(Xw < 0, E, 1) * share)
    return (Xw * above * share).astype(X.dtype), (slope * share).astype(X.dtype)


class GeluResiduals(NamedTuple):
    """One of the two.

    Attributes:
      X: input, where Φ or σ are recomputed.
      slope: dY/dX, where it was saved.
    """

    X: Elements | None
    slope: Elements | None


def gelu_forward(
    X: Elements, *, approximate: bool = False, residuals: Policy = "save"
) -> tuple[Elements, GeluResiduals]:
    """Y = X ∘ Φ(X), Φ the normal distribution function, or its tanh form.

    Args:
      approximate: False for Φ(x) = ½ erfc(−x/√2), True for Φ(x) ≈ ½ (1 + tanh u) = σ(2u), u = √(2/π) (x + 0.044715 x³).
      residuals: "save" keeps the slope, "recompute" X.
    Derivation: docs/derivations/activations/self_gated.md (Hendrycks and Gimpel 2016)
    """
    check_array("gelu_forward", "X", X)
    check_flags("gelu_forward", approximate=approximate)
    check_choice("gelu_forward", "residuals", residuals, POLICIES)
    Y, slope = gelu_with_slope(X, approximate)
    return Y, GeluResiduals(X, None) if residuals == "recompute" else GeluResiduals(None, slope)


def gelu_backward(residuals: GeluResiduals, dY: Elements, *, approximate: bool = False) -> tuple[Elements]:
    """Pull dY back through Y = X ∘ Φ(X), φ = Φ′.

        dX = dY ∘ (Φ + X ∘ φ)

    Derivation: docs/derivations/activations/self_gated.md
    """
    kept = check_residuals("gelu_backward", residuals, GeluResiduals)
    return (_pull_back("gelu_backward", partial(gelu_with_slope, approximate=approximate), *kept, dY),)


gelu = Rule(gelu_forward, gelu_backward)


def gelu_with_slope(X: Elements, approximate: bool = False) -> tuple[Elements, Elements]:
    """Y and its slope, in X's dtype, of the exact or of the tanh form."""
    (Xw,) = wide(X)
    if approximate:
        S = jax.lax.logistic(Xw * (TWO_U + TWO_U_CUBIC * (Xw * Xw)))
        Z = jnp.clip(Xw, -BEYOND, BEYOND)  # the gate is 0 or 1 where 2u overflows, but 0 · ∞ would be NaN
        Y, slope = Xw * S, S * (1 + Z * (TWO_U + 3 * TWO_U_CUBIC * (Z * Z)) * (1 - S))
    else:
        Z = -Xw * SQRT_HALF
        twice = jax.lax.erfc(Z)  # Φ itself underflows where x Φ does not
        E = jnp.exp(-(Z * Z))  # the exponential that erfc is made of: XLA computes it once
        Y, slope = Xw / 2 * twice, (twice + Xw * E * SQRT_2_OVER_PI) / 2
    return Y.astype(X.dtype), slope.astype(X.dtype)


def _pull_back(
    where: str,
    with_slope: Callable[[Elements], tuple[Elements, Elements]],
    X: Elements | None,
    slope: Elements | None,
    dY: Elements,
) -> Elements:
    """dY ∘ slope, which was saved or is recomputed from X."""
    if X is not None:
        _, slope = with_slope(X)
    assert slope is not None
    check_cotangent(where, dY, slope.shape, slope.dtype)
    return dY * slope
