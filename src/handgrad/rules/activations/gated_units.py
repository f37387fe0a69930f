"""Gated units Y = g(U) ∘ V: one array opens the gate for another.

Each keeps two arrays of U's size: U and V themselves, and the backward pass computes the gate again
(residuals="recompute"), or what the two cotangents are dY's product with, computed by the forward pass ("save").
Gates and slopes are computed in float32 at least, and so are their products; each output is rounded once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import check_array, check_choice, check_cotangent, check_residuals, check_shape
from handgrad.rules._elementwise import sigmoids, wide
from handgrad.rules.activations.self_gated import gelu_forward, silu_forward
from handgrad.rules.rule import Rule

__all__ = [
    "GegluResiduals",
    "GluResiduals",
    "SwigluResiduals",
    "geglu",
    "geglu_backward",
    "geglu_forward",
    "glu",
    "glu_backward",
    "glu_forward",
    "swiglu",
    "swiglu_backward",
    "swiglu_forward",
]

Array = jax.Array

POLICIES = ("recompute", "save")


class GluResiduals(NamedTuple):
    """Two arrays of the four: the first two, or the last two; the others are None.

    Attributes:
      U, V: (batch, ...) the arguments, where σ(U) is computed again.
      slope: (batch, ...) dY/dU = V ∘ S ∘ σ(−U), S = σ(U), in U's dtype, where it was saved.
      gate: (batch, ...) dY/dV = S, in V's dtype, where it was saved.
    """

    U: Any
    V: Any
    slope: Any
    gate: Any


def glu_forward(U: Array, V: Array, *, residuals: str = "recompute") -> tuple[Array, GluResiduals]:
    """Y = σ(U) ∘ V.

    Args:
      U: (batch, ...) floating point, what the gate sees.
      V: like U, what goes through it.
      residuals: "recompute" keeps U and V, "save" the slope and the gate.
    Returns:
      Y like U, in the promoted dtype of U and V; residuals.
    Raises:
      InputError: U or V is not floating point; V is not of U's shape; residuals is neither of the two.
    Derivation: docs/derivations/activations/gated_units.md (Dauphin et al. 2017)
    """
    _check("glu_forward", U, V, residuals)
    gate, slope = _sigmoid(U)
    Y = (gate * V).astype(jnp.result_type(U, V))
    kept = (U, V, None, None) if residuals == "recompute" else (None, None, *_slopes(U, V, gate, slope))
    return Y, GluResiduals(*kept)


def glu_backward(residuals: GluResiduals, dY: Array) -> tuple[Array, Array]:
    """Pull dY back through Y = S ∘ V with S = σ(U).

        dU = dY ∘ V ∘ S ∘ σ(−U)      dV = dY ∘ S

    Args:
      residuals: GluResiduals of glu_forward.
      dY: like Y, its cotangent.
    Returns:
      dU like U; dV like V.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/gated_units.md
    """
    U, V, slope, gate = check_residuals("glu_backward", residuals, GluResiduals)
    if U is None:
        return _pull_back("glu_backward", dY, slope, gate, slope, gate)
    gate, slope = _sigmoid(U)
    return _pull_back("glu_backward", dY, slope * V, gate, U, V)


glu = Rule(glu_forward, glu_backward)


class SwigluResiduals(NamedTuple):
    """Two arrays of the four: the first two, or the last two; the others are None.

    Attributes:
      U, V: (batch, ...) the arguments, where σ(U) is computed again.
      slope: (batch, ...) dY/dU = V ∘ S ∘ (1 + U ∘ (1 − S)), S = σ(U), in U's dtype, where it was saved.
      gate: (batch, ...) dY/dV = U ∘ S, in V's dtype, where it was saved.
    """

    U: Any
    V: Any
    slope: Any
    gate: Any


def swiglu_forward(U: Array, V: Array, *, residuals: str = "recompute") -> tuple[Array, SwigluResiduals]:
    """Y = silu(U) ∘ V, silu(u) = u σ(u).

    Args:
      U: (batch, ...) floating point, what the gate sees.
      V: like U, what goes through it.
      residuals: "recompute" keeps U and V, "save" the slope and the gate.
    Returns:
      Y like U, in the promoted dtype of U and V; residuals.
    Raises:
      InputError: U or V is not floating point; V is not of U's shape; residuals is neither of the two.
    Derivation: docs/derivations/activations/gated_units.md (Shazeer 2020)
    """
    _check("swiglu_forward", U, V, residuals)
    gate, slope = _silu(U)
    Y = (gate * V).astype(jnp.result_type(U, V))
    kept = (U, V, None, None) if residuals == "recompute" else (None, None, *_slopes(U, V, gate, slope))
    return Y, SwigluResiduals(*kept)


def swiglu_backward(residuals: SwigluResiduals, dY: Array) -> tuple[Array, Array]:
    """Pull dY back through Y = U ∘ S ∘ V with S = σ(U).

        dU = dY ∘ V ∘ S ∘ (1 + U ∘ (1 − S))      dV = dY ∘ U ∘ S

    Args:
      residuals: SwigluResiduals of swiglu_forward.
      dY: like Y, its cotangent.
    Returns:
      dU like U; dV like V.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/gated_units.md
    """
    U, V, slope, gate = check_residuals("swiglu_backward", residuals, SwigluResiduals)
    if U is None:
        return _pull_back("swiglu_backward", dY, slope, gate, slope, gate)
    gate, slope = _silu(U)
    return _pull_back("swiglu_backward", dY, slope * V, gate, U, V)


swiglu = Rule(swiglu_forward, swiglu_backward)


class GegluResiduals(NamedTuple):
    """Two arrays of the four: the first two, or the last two; the others are None.

    Attributes:
      U, V: (batch, ...) the arguments, where Φ or σ are computed again.
      slope: (batch, ...) dY/dU = V ∘ (Φ + U ∘ φ), in U's dtype, where it was saved.
      gate: (batch, ...) dY/dV = U ∘ Φ, in V's dtype, where it was saved.
    """

    U: Any
    V: Any
    slope: Any
    gate: Any


def geglu_forward(
    U: Array, V: Array, *, approximate: bool = False, residuals: str = "recompute"
) -> tuple[Array, GegluResiduals]:
    """Y = gelu(U) ∘ V, gelu(u) = u Φ(u).

    Args:
      U: (batch, ...) floating point, what the gate sees.
      V: like U, what goes through it.
      approximate: True for the tanh form of Φ, as in gelu_forward.
      residuals: "recompute" keeps U and V, "save" the slope and the gate.
    Returns:
      Y like U, in the promoted dtype of U and V; residuals.
    Raises:
      InputError: U or V is not floating point; V is not of U's shape; residuals is neither of the two.
    Derivation: docs/derivations/activations/gated_units.md (Shazeer 2020)
    """
    _check("geglu_forward", U, V, residuals)
    gate, slope = _gelu(U, approximate)
    Y = (gate * V).astype(jnp.result_type(U, V))
    kept = (U, V, None, None) if residuals == "recompute" else (None, None, *_slopes(U, V, gate, slope))
    return Y, GegluResiduals(*kept)


def geglu_backward(residuals: GegluResiduals, dY: Array, *, approximate: bool = False) -> tuple[Array, Array]:
    """Pull dY back through Y = U ∘ Φ(U) ∘ V, φ = Φ′.

        dU = dY ∘ V ∘ (Φ + U ∘ φ)      dV = dY ∘ U ∘ Φ

    Args:
      residuals: GegluResiduals of geglu_forward.
      dY: like Y, its cotangent.
      approximate: the forward's.
    Returns:
      dU like U; dV like V.
    Raises:
      InputError: residuals of another rule; dY not of Y's shape and dtype.
    Derivation: docs/derivations/activations/gated_units.md
    """
    U, V, slope, gate = check_residuals("geglu_backward", residuals, GegluResiduals)
    if U is None:
        return _pull_back("geglu_backward", dY, slope, gate, slope, gate)
    gate, slope = _gelu(U, approximate)
    return _pull_back("geglu_backward", dY, slope * V, gate, U, V)


geglu = Rule(geglu_forward, geglu_backward)


def _check(where: str, U: Array, V: Array, residuals: str) -> None:
    check_array(where, "U", U)
    check_array(where, "V", V)
    check_shape(where, "V", V, U.shape, "like U")
    check_choice(where, "residuals", residuals, POLICIES)


def _sigmoid(U: Array) -> tuple[Array, Array]:
    """The gate g(U) and its slope g′(U), float32 at least."""
    S, complement = sigmoids(wide(U))
    return S, S * complement


def _silu(U: Array) -> tuple[Array, Any]:
    gate, kept = silu_forward(wide(U), residuals="save")
    return gate, kept.slope


def _gelu(U: Array, approximate: bool) -> tuple[Array, Any]:
    gate, kept = gelu_forward(wide(U), approximate=approximate, residuals="save")
    return gate, kept.slope


def _slopes(U: Array, V: Array, gate: Array, slope: Array) -> tuple[Array, Array]:
    """dY/dU and dY/dV, each in its own argument's dtype: so they tell the cotangents theirs."""
    return (V * slope).astype(U.dtype), gate.astype(V.dtype)


def _pull_back(where: str, dY: Array, slope: Array, gate: Array, U: Array, V: Array) -> tuple[Array, Array]:
    """dU and dV like U and V, of which the dtypes are asked alone."""
    check_cotangent(where, dY, slope.shape, jnp.result_type(U, V))
    dY = wide(dY)
    return (dY * slope).astype(U.dtype), (dY * gate).astype(V.dtype)
