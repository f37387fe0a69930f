"""The gate of a mixture of experts: top-k routing, and the loss that keeps the experts' load even."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from handgrad.checks import InputError, check_array, check_choice, check_cotangent, check_count, check_residuals
from handgrad.factors.base import accumulator
from handgrad.rule import Rule
from handgrad.rules.activations.softmax import SoftmaxResiduals, softmax_backward, softmax_forward

__all__ = [
    "LoadBalancingLossResiduals",
    "TopKGateResiduals",
    "load_balancing_loss",
    "load_balancing_loss_backward",
    "load_balancing_loss_forward",
    "top_k_gate",
    "top_k_gate_backward",
    "top_k_gate_forward",
]

Logits = Float[Array, "batch *rest experts"]
Losses = Float[Array, " batch"]


class TopKGateResiduals(NamedTuple):
    """Probabilities, and a bit for each of them where they are not 0 already.

    Attributes:
      P: the softmax over the chosen logits, which is G itself, or over all.
      M: true for the chosen experts; None where P is G.
    """

    P: Logits
    M: Bool[Array, "batch *rest experts"] | None


def top_k_gate_forward(
    Z: Logits, *, k: int, softmax_over: Literal["chosen", "all"] = "chosen"
) -> tuple[Logits, TopKGateResiduals]:
    """G = softmax over each token's k largest logits, 0 for every other expert; Σ_e G_e E_e(x) mixes the experts.

    The choice of experts is piecewise constant in Z, so its derivative is taken as 0. Ties go to the lower index, as
    in jax.lax.top_k.

    Args:
      Z: the gate's logits.
      k: the number of experts per token, at most all of them.
      softmax_over: "chosen" normalizes the k weights to sum 1 (Mixtral); "all" takes them from the softmax over all
        experts (Switch). With k = 1 use "all": "chosen" gives a weight of 1 and no gradient for the gate.
    Derivation: docs/derivations/structure/mixture_of_experts.md (Shazeer et al., 2017; Jiang et al., 2024)
    """
    check_array("top_k_gate_forward", "the logits Z", Z, min_ndim=2)
    M = _chosen("top_k_gate_forward", Z, k)
    check_choice("top_k_gate_forward", "softmax_over", softmax_over, ("chosen", "all"))
    if softmax_over == "chosen":
        G = _softmax(jnp.where(M, Z, -jnp.inf))
        return G, TopKGateResiduals(G, None)
    P = _softmax(Z)
    return jnp.where(M, P, 0), TopKGateResiduals(P, M)


def top_k_gate_backward(
    residuals: TopKGateResiduals, dG: Logits, *, k: int, softmax_over: Literal["chosen", "all"] = "chosen"
) -> tuple[Logits]:
    """Pull dG back through G = M ∘ P, P = softmax of the chosen logits, or of all.

        dP = M ∘ dG      dZ = P ∘ (dP − ⟨P, dP⟩ 1ᵀ)

    With "chosen", M can be left out: P is 0 for every other expert, and so is dZ.

    Derivation: docs/derivations/structure/mixture_of_experts.md (Shazeer et al., 2017; Jiang et al., 2024)
    """
    P, M = check_residuals("top_k_gate_backward", residuals, TopKGateResiduals)
    check_cotangent("top_k_gate_backward", dG, P.shape, P.dtype, name="dG", of="G")
    return (_softmax_cotangent(P, dG if M is None else jnp.where(M, dG, 0)),)


top_k_gate = Rule(top_k_gate_forward, top_k_gate_backward)


class LoadBalancingLossResiduals(NamedTuple):
    """Probabilities, and one number for each expert.

    Attributes:
      P: the softmax over all logits.
      F: each expert's share of the tokens, in at least float32; one row with counts="batch".
    """

    P: Logits
    F: Float[Array, "#batch experts"]


def load_balancing_loss_forward(
    Z: Logits, *, k: int, counts: Literal["example", "batch"] = "example"
) -> tuple[Losses, LoadBalancingLossResiduals]:
    """C_b = n Σ_e f_e p_be: n experts, f_e the share of tokens routed to e, p_be e's mean probability in example b.

    It is 1 for a balanced load, and up to n where one expert gets every token. f is a count, piecewise constant in Z;
    the gradient lowers the probability of the experts that are chosen often.

    Args:
      Z: the gate's logits.
      k: the number of experts per token, at most all of them; a token counts 1 / k for each.
      counts: "example" counts f over the example's own tokens, so that examples don't interact. "batch" counts over all
        tokens of the batch: the mean of C over the examples is then the Switch Transformer's loss. C_b then depends
        on the other examples, but only through f, so its gradient is still zero outside of example b.
    Derivation: docs/derivations/structure/mixture_of_experts.md (Fedus et al., 2021)
    """
    check_array("load_balancing_loss_forward", "the logits Z", Z, min_ndim=2)
    M = _chosen("load_balancing_loss_forward", Z, k)
    check_choice("load_balancing_loss_forward", "counts", counts, ("example", "batch"))
    P = _softmax(Z)
    tokens, dtype = tuple(range(1, Z.ndim - 1)), accumulator(Z)
    F = jnp.mean(M, axis=tokens, dtype=dtype) / k
    if counts == "batch":
        F = jnp.mean(F, axis=0, keepdims=True)
    C = Z.shape[-1] * jnp.sum(F * jnp.mean(P, axis=tokens, dtype=dtype), axis=-1)
    return C.astype(Z.dtype), LoadBalancingLossResiduals(P, F)


def load_balancing_loss_backward(
    residuals: LoadBalancingLossResiduals, dC: Losses, *, k: int, counts: Literal["example", "batch"] = "example"
) -> tuple[Logits]:
    """Pull dC back through C_b = n Σ_e f_e p_be, p_b the mean of P over the T tokens.

        dP = (n / T) dC f      dZ = P ∘ (dP − ⟨P, dP⟩ 1ᵀ)

    Derivation: docs/derivations/structure/mixture_of_experts.md (Fedus et al., 2021)
    """
    P, F = check_residuals("load_balancing_loss_backward", residuals, LoadBalancingLossResiduals)
    check_cotangent("load_balancing_loss_backward", dC, P.shape[:1], P.dtype, name="dC", of="C")
    tokens, n = P.shape[1:-1], P.shape[-1]
    dP = n / max(math.prod(tokens), 1) * jnp.expand_dims(dC, 1) * F
    dP = jnp.broadcast_to(jnp.expand_dims(dP, tuple(range(1, P.ndim - 1))), P.shape)
    return (_softmax_cotangent(P, dP),)


load_balancing_loss = Rule(load_balancing_loss_forward, load_balancing_loss_backward)


def _chosen(where: str, Z: Logits, k: int) -> Bool[Array, "batch *rest experts"]:
    """True for the k experts of each token."""
    check_count(where, "k", k)
    if k > Z.shape[-1]:
        raise InputError(f"{where}: k must be at most the number of experts, {Z.shape[-1]}, got {k}")
    _, experts = jax.lax.top_k(Z, k)
    return jnp.any(jax.nn.one_hot(experts, Z.shape[-1], dtype=bool), axis=-2)


def _softmax(Z: Logits) -> Logits:
    """Along the last axis, computed in at least float32."""
    return softmax_forward(Z.astype(accumulator(Z)))[0].astype(Z.dtype)


def _softmax_cotangent(P: Logits, dP: Logits) -> Logits:
    """P ∘ (dP − ⟨P, dP⟩ 1ᵀ), computed in at least float32."""
    dtype = accumulator(P)
    of_softmax = SoftmaxResiduals(P.astype(dtype), jnp.max(P, axis=-1, keepdims=True))
    return softmax_backward(of_softmax, dP.astype(dtype))[0].astype(P.dtype)
