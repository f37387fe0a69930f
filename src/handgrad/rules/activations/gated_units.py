"""Gated units Y = g(U) ∘ V: one array is multiplied by a gate of the other.

Each keeps two arrays of U's size: U and V themselves, and the backward pass recomputes the gate
(residuals="recompute"), or dY/dU and dY/dV, computed by the forward pass ("save").
Gates and slopes are computed in float32 at least, and so are their products; each output is rounded once.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_choice, check_cotangent, check_flags, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.activations.self_gated import gelu_with_slope, silu_with_slope
from handgrad.rules.activations.smooth import sigmoids

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

Elements = Float[Array, "*shape"]
Policy = Literal["recompute", "save"]
GateOf = Callable[[Elements], tuple[Elements, Elements]]  # U -> the gate g(U) and its slope g′(U)
POLICIES = ("recompute", "save")


class GluResiduals(NamedTuple):
    """Two arrays of the four: the first two, or the last two; the others are None.

    Attributes:
      U, V: the arguments, where σ(U) is recomputed.
      slope: dY/dU = V ∘ S ∘ σ(−U), S = σ(U), in U's dtype, where it was saved.
      gate: dY/dV = S, in V's dtype, where it was saved.
    """

    U: Elements | None
    V: Elements | None
    slope: Elements | None
    gate: Elements | None


def glu_forward(U: Elements, V: Elements, *, residuals: Policy = "recompute") -> tuple[Elements, GluResiduals]:
    """Y = σ(U) ∘ V, in the promoted dtype of U and V.

    Args:
      U: the gate's input.
      V: what the gate multiplies.
      residuals: "recompute" keeps U and V, "save" the slope and the gate.
    Derivation: docs/derivations/activations/gated_units.md (Dauphin et al. 2017)
    """
    Y, kept = _gated("glu_forward", _sigmoid, U, V, residuals)
    return Y, GluResiduals(*kept)


def glu_backward(residuals: GluResiduals, dY: Elements) -> tuple[Elements, Elements]:
    """Pull dY back through Y = S ∘ V with S = σ(U).

        dU = dY ∘ V ∘ S ∘ σ(−U)      dV = dY ∘ S

    Derivation: docs/derivations/activations/gated_units.md
    """
    kept = check_residuals("glu_backward", residuals, GluResiduals)
    return _pull_back("glu_backward", _sigmoid, kept, dY)


glu = Rule(glu_forward, glu_backward)


class SwigluResiduals(NamedTuple):
    """Two arrays of the four: the first two, or the last two; the others are None.

    Attributes:
      U, V: the arguments, where σ(U) is recomputed.
      slope: dY/dU = V ∘ S ∘ (1 + U ∘ (1 − S)), S = σ(U), in U's dtype, where it was saved.
      gate: dY/dV = U ∘ S, in V's dtype, where it was saved.
    """

    U: Elements | None
    V: Elements | None
    slope: Elements | None
    gate: Elements | None


def swiglu_forward(U: Elements, V: Elements, *, residuals: Policy = "recompute") -> tuple[Elements, SwigluResiduals]:
    """Y = silu(U) ∘ V, silu(u) = u σ(u), in the promoted dtype of U and V.

    Args:
      U: the gate's input.
      V: what the gate multiplies.
      residuals: "recompute" keeps U and V, "save" the slope and the gate.
    Derivation: docs/derivations/activations/gated_units.md (Shazeer 2020)
    """
    Y, kept = _gated("swiglu_forward", silu_with_slope, U, V, residuals)
    return Y, SwigluResiduals(*kept)


def swiglu_backward(residuals: SwigluResiduals, dY: Elements) -> tuple[Elements, Elements]:
    """Pull dY back through Y = U ∘ S ∘ V with S = σ(U).

        dU = dY ∘ V ∘ S ∘ (1 + U ∘ (1 − S))      dV = dY ∘ U ∘ S

    Derivation: docs/derivations/activations/gated_units.md
    """
    return _pull_back(
        "swiglu_backward", silu_with_slope, check_residuals("swiglu_backward", residuals, SwigluResiduals), dY
    )


swiglu = Rule(swiglu_forward, swiglu_backward)


class GegluResiduals(NamedTuple):
    """Two arrays of the four: the first two, or the last two; the others are None.

    Attributes:
      U, V: the arguments, where Φ or σ are recomputed.
      slope: dY/dU = V ∘ (Φ + U ∘ φ), in U's dtype, where it was saved.
      gate: dY/dV = U ∘ Φ, in V's dtype, where it was saved.
    """

    U: Elements | None
    V: Elements | None
    slope: Elements | None
    gate: Elements | None


def geglu_forward(
    U: Elements, V: Elements, *, approximate: bool = False, residuals: Policy = "recompute"
) -> tuple[Elements, GegluResiduals]:
    """Y = gelu(U) ∘ V, gelu(u) = u Φ(u), in the promoted dtype of U and V.

    Args:
      U: the gate's input.
      V: what the gate multiplies.
      approximate: True for the tanh form of Φ, as in gelu_forward.
      residuals: "recompute" keeps U and V, "save" the slope and the gate.
    Derivation: docs/derivations/activations/gated_units.md (Shazeer 2020)
    """
    check_flags("geglu_forward", approximate=approximate)
    Y, kept = _gated("geglu_forward", partial(gelu_with_slope, approximate=approximate), U, V, residuals)
    return Y, GegluResiduals(*kept)


def geglu_backward(residuals: GegluResiduals, dY: Elements, *, approximate: bool = False) -> tuple[Elements, Elements]:
    """Pull dY back through Y = U ∘ Φ(U) ∘ V, φ = Φ′.

        dU = dY ∘ V ∘ (Φ + U ∘ φ)      dV = dY ∘ U ∘ Φ

    Derivation: docs/derivations/activations/gated_units.md
    """
    kept = check_residuals("geglu_backward", residuals, GegluResiduals)
    return _pull_back("geglu_backward", partial(gelu_with_slope, approximate=approximate), kept, dY)


geglu = Rule(geglu_forward, geglu_backward)


def _sigmoid(U: Elements) -> tuple[Elements, Elements]:
    """The gate g(U) and its slope g′(U)."""
    S, complement = sigmoids(U)
    return S, S * complement


def _gated(
    where: str, gate_of: GateOf, U: Elements, V: Elements, residuals: Policy
) -> tuple[Elements, tuple[Elements | None, ...]]:
    """Y, and what is kept: U and V, or dY/dU and dY/dV, each in its own argument's dtype, which is its cotangent's."""
    check_array(where, "U", U)
    check_array(where, "V", V)
    check_shape(where, "V", V, U.shape, "like U")
    check_choice(where, "residuals", residuals, POLICIES)
    gate, slope = gate_of(*wide(U))
    Y = (gate * V).astype(jnp.result_type(U, V))
    if residuals == "recompute":
        return Y, (U, V, None, None)
    return Y, (None, None, (V * slope).astype(U.dtype), gate.astype(V.dtype))


def _pull_back(
    where: str, gate_of: GateOf, kept: tuple[Elements | None, ...], dY: Elements
) -> tuple[Elements, Elements]:
    """dY times dY/dU and dY/dV, as they were saved, or from U and V."""
    U, V, slope, gate = kept
    if U is None or V is None:
        assert slope is not None
        assert gate is not None
        U, V = slope, gate  # of the arguments' own shapes and dtypes
    else:
        gate, slope = gate_of(*wide(U))
        slope = slope * V
    check_cotangent(where, dY, slope.shape, jnp.result_type(U, V))
    (dYw,) = wide(dY)
    return (dYw * slope).astype(U.dtype), (dYw * gate).astype(V.dtype)
