"""The gate of a mixture of experts: top-k routing, and the loss that keeps the experts' load even."""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

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

Array = jax.Array


class TopKGateResiduals(NamedTuple):
    """Probabilities, and a bit for each of them where they are not 0 already.

    Attributes:
      P: (batch, ..., experts) softmax over the chosen logits, which is G itself, or over all.
      M: (batch, ..., experts) booleans, the chosen ones; None where P is G.
    """

    P: Array
    M: Array | None


def top_k_gate_forward(
    Z: Array, *, k: int, softmax_over: Literal["chosen", "all"] = "chosen"
) -> tuple[Array, TopKGateResiduals]:
    """G = softmax over each token's k largest logits, 0 for every other expert; Σ_e G_e E_e(x) mixes the experts.

    The choice itself has no slope: it is constant but where two logits tie. Of equal logits the one of the lower index
    is chosen, as jax.lax.top_k does.

    Args:
      Z: (batch, ..., experts) the gate's logits, floating point.
      k: how many experts a token has.
      softmax_over: "chosen" gives the k weights the sum 1 (Mixtral); "all" leaves them as they are among all experts
        (Switch). With k = 1 a softmax over the chosen is 1, and the gate learns nothing: take "all".
    Returns:
      G like Z; residuals.
    Raises:
      InputError: Z is not floating point; k not in 1 … experts; softmax_over of another name.
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
    residuals: TopKGateResiduals, dG: Array, *, k: int, softmax_over: Literal["chosen", "all"] = "chosen"
) -> tuple[Array]:
    """Pull dG back through G = M ∘ P, P = softmax of the chosen logits, or of all.

        dP = M ∘ dG      dZ = P ∘ (dP − ⟨P, dP⟩ 1ᵀ)

    With "chosen", P is 0 for every other expert, with or without M, and so is dZ.

    Args:
      residuals: TopKGateResiduals of top_k_gate_forward.
      dG: (batch, ..., experts) cotangent of G.
      k, softmax_over: the forward's; the residuals tell.
    Returns:
      dZ like Z.
    Derivation: docs/derivations/structure/mixture_of_experts.md (Shazeer et al., 2017; Jiang et al., 2024)
    """
    P, M = check_residuals("top_k_gate_backward", residuals, TopKGateResiduals)
    check_cotangent("top_k_gate_backward", dG, P.shape, P.dtype, name="dG", of="G")
    return (_softmax_cotangent(P, dG if M is None else jnp.where(M, dG, 0)),)


top_k_gate = Rule(top_k_gate_forward, top_k_gate_backward)


class LoadBalancingLossResiduals(NamedTuple):
    """Probabilities, and one number for each expert.

    Attributes:
      P: (batch, ..., experts) softmax of all logits.
      F: (batch, experts) or (1, experts) share of the tokens that each expert was given, in float32 at least.
    """

    P: Array
    F: Array


def load_balancing_loss_forward(
    Z: Array, *, k: int, counts: Literal["example", "batch"] = "example"
) -> tuple[Array, LoadBalancingLossResiduals]:
    """C_b = n Σ_e f_e p_be: n experts, f_e the share of tokens routed to e, p_be e's mean probability in example b.

    It is 1 where all experts get the same, and up to n where one gets everything. f is a count and has no slope; the
    gradient lowers the probability of the experts that are chosen often.

    Args:
      Z: (batch, ..., experts) the gate's logits, floating point.
      k: how many experts a token has; a token counts 1 / k for each of them.
      counts: "example" counts f over the example's own tokens, so that examples don't interact. "batch" counts over all
        tokens of the batch: the mean of C over the examples is then the Switch Transformer's loss of the batch, and
        C_b depends on the other examples, by f alone: each gradient still is the example's own.
    Returns:
      C (batch,); residuals.
    Raises:
      InputError: Z is not floating point; k not in 1 … experts; counts of another name.
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
    residuals: LoadBalancingLossResiduals, dC: Array, *, k: int, counts: Literal["example", "batch"] = "example"
) -> tuple[Array]:
    """Pull dC back through C_b = n Σ_e f_e p_be, p_b the mean of P over the T tokens.

        dP = (n / T) dC f      dZ = P ∘ (dP − ⟨P, dP⟩ 1ᵀ)

    Args:
      residuals: LoadBalancingLossResiduals of load_balancing_loss_forward.
      dC: (batch,) cotangent of C.
      k, counts: the forward's; the residuals tell.
    Returns:
      dZ like Z.
    Derivation: docs/derivations/structure/mixture_of_experts.md (Fedus et al., 2021)
    """
    P, F = check_residuals("load_balancing_loss_backward", residuals, LoadBalancingLossResiduals)
    check_cotangent("load_balancing_loss_backward", dC, P.shape[:1], P.dtype, name="dC", of="C")
    tokens, n = P.shape[1:-1], P.shape[-1]
    dP = n / math.prod(tokens) * jnp.expand_dims(dC, 1) * F
    dP = jnp.broadcast_to(jnp.expand_dims(dP, tuple(range(1, P.ndim - 1))), P.shape)
    return (_softmax_cotangent(P, dP),)


load_balancing_loss = Rule(load_balancing_loss_forward, load_balancing_loss_backward)


def _chosen(where: str, Z: Array, k: int) -> Array:
    """Which k experts each token is given to: booleans like Z."""
    check_count(where, "k", k)
    if k > Z.shape[-1]:
        raise InputError(f"{where}: k must be at most the number of experts, {Z.shape[-1]}, got {k}")
    _, experts = jax.lax.top_k(Z, k)
    return jnp.any(jax.nn.one_hot(experts, Z.shape[-1], dtype=bool), axis=-2)


def _softmax(Z: Array) -> Array:
    """Along the last axis, computed in at least float32."""
    return softmax_forward(Z.astype(accumulator(Z)))[0].astype(Z.dtype)


def _softmax_cotangent(P: Array, dP: Array) -> Array:
    """P ∘ (dP − ⟨P, dP⟩ 1ᵀ), computed in at least float32."""
    dtype = accumulator(P)
    (dZ,) = softmax_backward(SoftmaxResiduals(P.astype(dtype)), dP.astype(dtype))
    return dZ.astype(P.dtype)
