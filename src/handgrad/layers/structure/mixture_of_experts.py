"""mixture_of_experts: a gate that gives each token to k of n layers."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from handgrad import rules
from handgrad.checks import InputError, check_count, check_params, check_residuals
from handgrad.factors.base import accumulator
from handgrad.factors.coupled import coupled
from handgrad.factors.stacked import stack
from handgrad.factors.trees import with_mask
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.linear.linear import LinearParams, linear
from handgrad.layers.observing import over_copies
from handgrad.layers.structure.auxiliary import check_pair
from handgrad.layers.structure.repeat import check_stacked

__all__ = ["MixtureOfExpertsParams", "mixture_of_experts"]

MIX = "b...e,eb...o->b...o"
COUPLING = 'mixture_of_experts with counts="batch" couples the examples of a batch (counts="example" does not)'


class MixtureOfExpertsParams(NamedTuple):
    """Parameters of `mixture_of_experts`.

    Attributes:
      gate: LinearParams of the gate, without a bias.
      experts: an expert's params, each array with an axis of all experts in front.
    """

    gate: LinearParams
    experts: PyTree


class MixtureOfExpertsResiduals(NamedTuple):
    """What each of the steps keeps.

    Attributes:
      gate: the gate's.
      route: top_k_gate's.
      balance: load_balancing_loss's, or None.
      experts: an expert's, each array with an axis of all experts in front.
      mix: einsum's: G and every expert's output.
    """

    gate: rules.LinearResiduals
    route: rules.TopKGateResiduals
    balance: rules.LoadBalancingLossResiduals | None
    experts: PyTree
    mix: rules.EinsumResiduals


def mixture_of_experts(
    expert: Layer,
    n: int,
    *,
    k: int,
    softmax_over: Literal["chosen", "all"] = "chosen",
    balance: bool = False,
    counts: Literal["example", "batch"] = "example",
) -> Layer:
    """y = Σ_e G_e E_e(x), G = top_k_gate(x W), with parameters MixtureOfExpertsParams(gate, experts).

    Every expert sees every token, and G takes k of their answers: exact, without a capacity that drops tokens, for
    n / k times the work of a layer that sends each token to its own experts alone. An expert's gradient is a Stacked
    factor; a token that was not sent to an expert has a zero cotangent there, and doesn't count in K-FAC's mean.

    Args:
      expert: a layer; each expert has parameters of its own.
      n: how many experts.
      k: how many of them a token has.
      softmax_over: "chosen" or "all", as top_k_gate.
      balance: True returns (y, C), with the load-balancing loss C (batch,) beside y; `add_auxiliary` adds it to a
        loss, `carry_auxiliary` takes it past the layers in between.
      counts: "example" or "batch", as load_balancing_loss.
    Raises:
      InputError: n or k is not a positive integer, or k is above n; at trace time, params of another layer.
    Derivation: docs/derivations/structure/mixture_of_experts.md (Shazeer et al., 2017)
    """
    check_layer("mixture_of_experts", expert)
    check_count("mixture_of_experts", "n", n)
    check_count("mixture_of_experts", "k", k)
    if k > n:
        raise InputError(f"mixture_of_experts: k must be at most n, {n}, got {k}")
    expert, gate = placed("experts", expert), placed("gate", linear(n, bias=False))
    route = rules.top_k_gate.with_options(k=k, softmax_over=softmax_over)
    even, mix = rules.load_balancing_loss.with_options(k=k, counts=counts), rules.einsum.with_options(subscripts=MIX)
    of_counts = COUPLING if balance and counts == "batch" else None

    def init(key, x):
        key_gate, key_experts = jax.random.split(key)
        experts = jax.vmap(lambda key: expert.init(key, x))(jax.random.split(key_experts, n))
        return MixtureOfExpertsParams(gate.init(key_gate, x), experts)

    def forward(params, x, key=None):
        check_params("mixture_of_experts", params, MixtureOfExpertsParams)
        check_stacked("mixture_of_experts", "params.experts", params.experts, n)
        keys = None if key is None else jax.random.split(key, n)
        Z, of_gate = gate.forward(params.gate, x)
        G, of_route = route.forward(Z)
        each = over_copies(lambda p, key: expert.forward(p, x, key), n)
        H, of_experts = each(params.experts, keys)
        y, of_mix = mix.forward(G, H)
        C, of_balance = even.forward(Z) if balance else (None, None)
        residuals = MixtureOfExpertsResiduals(of_gate, of_route, of_balance, of_experts, of_mix)
        return (y, C) if balance else y, residuals

    def of_one(kept, dH, sent):
        dx, dparams = expert.backward(kept, dH)
        return dx, with_mask(dparams, sent)

    def backward(residuals, dy):
        residuals = check_residuals("mixture_of_experts", residuals, MixtureOfExpertsResiduals)
        dy, dC = check_pair("mixture_of_experts", "dy", dy) if balance else (dy, None)
        dG, dH = mix.backward(residuals.mix, dy)
        P, M = residuals.route
        dx, dexperts = jax.vmap(of_one)(residuals.experts, dH, jnp.moveaxis(P != 0 if M is None else M, -1, 0))
        (dZ,) = route.backward(residuals.route, dG)
        if balance:
            (of_balance,) = even.backward(residuals.balance, dC)
            dZ = dZ + of_balance
        dx_gate, dgate = gate.backward(residuals.gate, dZ)
        dx = dx_gate + jnp.sum(dx, axis=0, dtype=accumulator(dx))
        dparams = MixtureOfExpertsParams(coupled(dgate, of_counts), coupled(stack(dexperts), of_counts))
        return dx.astype(dx_gate.dtype), dparams

    return composed(init, forward, backward, of_counts or expert.couples)
