"""delta_net: a memory of keys and values for each head, written by the (gated) delta rule."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from handgrad import rules
from handgrad.checks import InputError, check_count, check_params, check_residuals, describe
from handgrad.factors import Total
from handgrad.layers.activations.self_gated import silu
from handgrad.layers.activations.smooth import sigmoid, softplus
from handgrad.layers.images.convolution import convolution
from handgrad.layers.layer import Layer
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.sequences._mixing import Heads, Sizes, Tokens, by_head, mixing, side_by_side, split_sizes
from handgrad.layers.structure.chain import chain

__all__ = ["DeltaMemoryParams", "DeltaNetParams", "delta_net"]

Numbers = Float[Array, "batch tokens heads"]
Inputs = tuple[Array, ...]  # queries, keys, values and β; gated, also step sizes and the gate


class DeltaMemoryParams(NamedTuple):
    """Parameters of what `delta_net` has between its projections.

    Attributes:
      gamma: (value_size,) scale of the norm of a head's output, initialized to ones.
      log_rate: (heads,) the logarithm of each head's rate of decay, or None.
    """

    gamma: Array
    log_rate: Array | None


class DeltaNetParams(NamedTuple):
    """Parameters of `delta_net`.

    Attributes:
      query, key: a dict of "project", W (width, heads × head_size), and "convolve", K (kernel, 1, heads × head_size).
      value: likewise, of heads × value_size.
      beta: "project", W (width, heads).
      mixer: DeltaMemoryParams(gamma, log_rate).
      output: W (heads × value_size, width).
      decay: "project", W (width, heads) and b (heads,), or None.
      gate: W (width, heads × value_size), or None.
    """

    query: dict[str, Any]
    key: dict[str, Any]
    value: dict[str, Any]
    beta: dict[str, Any]
    mixer: DeltaMemoryParams
    output: LinearParams
    decay: dict[str, Any] | None = None
    gate: LinearParams | None = None


class DeltaMemoryResiduals(NamedTuple):
    """Q, K, memory, norm, gate: what each rule keeps; log_decay: −e^log_rate ∘ the step sizes; log_rate: the parameter.

    Of the last three, None where there is no decay.
    """

    Q: rules.RmsNormResiduals
    K: rules.RmsNormResiduals
    memory: rules.DeltaRuleResiduals
    norm: rules.RmsNormResiduals
    gate: rules.SwigluResiduals | None
    log_decay: Numbers | None
    log_rate: Array | None


def delta_net(
    heads: int,
    *,
    gated: bool = False,
    head_size: int | None = None,
    value_size: int | None = None,
    kernel: int | None = 4,
    eps: float = 1e-6,
    chunk: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """For each head Y = norm(delta_rule(q / ‖q‖, k / ‖k‖, v, β)), then W; causal, (batch, tokens, width) to the same.

    Queries, keys and values are silu(conv(x W)), a short causal convolution of each feature; β = σ(x W). Gated,
    log a = −e^log_rate softplus(x W + b), and Y is silu(x W) ∘ norm(…) (Gated DeltaNet).

    >>> import jax, jax.numpy as jnp
    >>> from handgrad import layers
    >>> layers.delta_net(4).init(jax.random.key(0), jnp.ones((1, 10, 32))).key["convolve"].K.shape
    (4, 1, 32)

    Args:
      heads: memories side by side.
      gated: with a decay and an output gate.
      head_size, value_size: features of a head's queries and keys, and of its values; None is width / heads.
      kernel: tokens that a convolution sees; None is no convolution.
      eps: added to squared lengths and to mean squares.
      chunk: as delta_rule_forward.
      init_W: initializer of the projections' weights, (key, shape, dtype) -> array.
    Derivation: docs/derivations/sequences/delta_rule.md (Yang et al. 2024; Yang, Kautz and Hatamizadeh 2024)
    """
    where = "delta_net"
    if kernel is not None:
        check_count(where, "kernel", kernel)

    def projections(sizes: Sizes) -> dict[str, Layer]:
        def seen(n: int) -> Layer:
            return chain(**short_convolution(n, kernel, init_W=init_W), silu=silu())

        named = {"query": seen(sizes.keys), "key": seen(sizes.keys), "value": seen(sizes.values)}
        named["beta"] = chain(project=linear(heads, bias=False, init_W=init_W), sigmoid=sigmoid())
        if gated:
            named["decay"] = chain(project=linear(heads, init_W=init_W), softplus=softplus())
            named["gate"] = linear(sizes.values, bias=False, init_W=init_W)
        return named

    sizes = split_sizes(where, heads, head_size, value_size)
    return mixing(where, DeltaNetParams, sizes, projections, _memory(heads, gated, eps, chunk), init_W)


def short_convolution(n: int, kernel: int | None, *, bias: bool = False, init_W: Initializer) -> dict[str, Layer]:
    """A projection to n features, and a convolution of each of them over the last `kernel` tokens, by name."""
    layers = {"project": linear(n, bias=False, init_W=init_W)}
    if kernel is not None:
        layers["convolve"] = convolution(n, kernel, padding=((kernel - 1, 0),), groups=n, bias=bias)
    return layers


def _memory(heads: int, gated: bool, eps: float, chunk: int | None) -> Layer:
    """The delta rule between its inputs and the output's projection."""
    rule, norm = rules.delta_rule.with_options(chunk=chunk), rules.rms_norm.with_options(eps=eps)

    def unit(A: Tokens) -> tuple[Heads, rules.RmsNormResiduals]:
        """Each head's features over their length, √(Σ a² + eps)."""
        A = by_head(A, heads)
        unit, kept = rules.rms_norm_forward(A, eps=eps / A.shape[3])
        return unit * A.shape[3] ** -0.5, kept

    def unit_back(kept: rules.RmsNormResiduals, d: Heads) -> Tokens:
        return side_by_side(rules.rms_norm_backward(kept, d * d.shape[3] ** -0.5, eps=eps / d.shape[3])[0])

    def init(key: PRNGKeyArray, x: Inputs) -> DeltaMemoryParams:
        dtype = jax.dtypes.canonicalize_dtype(x[2].dtype)
        rate = jnp.log(jax.random.uniform(key, (heads,), dtype, 1, 16)) if gated else None
        return DeltaMemoryParams(jnp.ones(x[2].shape[2] // heads, dtype), rate)

    def forward(
        params: DeltaMemoryParams, x: Inputs, key: PRNGKeyArray | None = None
    ) -> tuple[Tokens, DeltaMemoryResiduals]:
        gamma, log_rate = check_params("delta_net", params, DeltaMemoryParams)
        if (log_rate is not None) != gated:
            expected = "an array" if gated else "None"
            raise InputError(f"delta_net: params.mixer.log_rate must be {expected}, got {describe(log_rate)}")
        q, k, v, beta, *others = x
        (Q, kept_Q), (K, kept_K) = unit(q), unit(k)
        log_decay = None if log_rate is None else -jnp.exp(log_rate)[None, None] * others[0]
        (Y, _), memory = rule.forward(Q, K, by_head(v, heads), beta, log_decay)
        Y, normed = norm.forward(Y, gamma)
        Y, gate = rules.swiglu_forward(by_head(others[1], heads), Y) if gated else (Y, None)
        return side_by_side(Y), DeltaMemoryResiduals(kept_Q, kept_K, memory, normed, gate, log_decay, log_rate)

    def backward(residuals: DeltaMemoryResiduals, dy: Tokens) -> tuple[Inputs, DeltaMemoryParams]:
        kept = check_residuals("delta_net", residuals, DeltaMemoryResiduals)
        dY, others, dlog_rate = by_head(dy, heads), (), None
        if kept.gate is not None:
            dgate, dY = rules.swiglu_backward(kept.gate, dY)
            others = (side_by_side(dgate),)
        dY, dgamma = norm.backward(kept.norm, dY)
        no_state = jnp.zeros(kept.memory.states.shape[1:], kept.memory.states.dtype)
        dQ, dK, dV, dbeta, dlog_decay, _ = rule.backward(kept.memory, (dY, no_state))
        if dlog_decay is not None and kept.log_rate is not None:
            others = (-jnp.exp(kept.log_rate)[None, None] * dlog_decay, *others)
            dlog_rate = Total(dlog_decay * kept.log_decay, kept.log_rate.dtype)
        dx = unit_back(kept.Q, dQ), unit_back(kept.K, dK), side_by_side(dV), dbeta, *others
        return dx, DeltaMemoryParams._make([dgamma, dlog_rate])

    return Layer(init, forward, backward)
