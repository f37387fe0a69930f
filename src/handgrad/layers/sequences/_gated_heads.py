"""What retention, gated linear attention and RWKV do between their projections: decay, normalize each head, gate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from handgrad import rules
from handgrad.checks import as_row, check_params
from handgrad.factors import Factor, Hadamard, Total
from handgrad.layers.layer import Layer
from handgrad.layers.sequences._mixing import Heads, Tokens, by_head, side_by_side

Initializer = jax.nn.initializers.Initializer


class GatedHeadsParams(NamedTuple):
    """Parameters between the projections and the output, None for those that a layer does without.

    Attributes:
      gamma, beta: (heads × value_size,) scale and shift of the normalized heads, side by side.
      bonus: (heads, head_size) weight of the current token.
    """

    gamma: Array | None = None
    beta: Array | None = None
    bonus: Array | None = None


class GatedHeadsResiduals(NamedTuple):
    """What each of the rules inside keeps; `rotated` is of queries and keys, N the normalized heads, side by side."""

    params: GatedHeadsParams
    rotated: tuple[rules.RotaryResiduals, rules.RotaryResiduals] | None
    attention: rules.LinearAttentionResiduals
    norm: Any
    N: Tokens
    gate: rules.SwigluResiduals


def gated_heads(
    where: str,
    heads: int,
    norm: rules.Rule[..., Any],
    *,
    scaled: bool = True,
    decay: np.ndarray | None = None,
    rotary: float | None = None,
    shift: bool = False,
    affine: bool = True,
    init_bonus: Initializer | None = None,
    chunk: int | None = None,
) -> Layer:
    """silu(G) ∘ (norm(linear attention of each head) ∘ γ + β), of (Q, K, V, log decay, G), or of (Q, K, V, G).

    All come side by side, (batch, tokens, heads × size).

    Args:
      norm: of a head's values, a rule of one argument.
      scaled: True divides queries by the root of their size.
      decay: log decay of each head where it is constant, no projection.
      rotary: the base of a rotary position embedding of queries and keys.
      affine, shift: whether there is a γ, and a β.
      init_bonus: initializer of the bonus; None omits it.
    """
    attend, rotate = rules.linear_attention.with_options(chunk=chunk), rules.rotary.with_options(base=rotary)
    gate = rules.swiglu

    def init(key: PRNGKeyArray, x: tuple[Any, ...]) -> GatedHeadsParams:
        (_, K, V), dtype = x[:3], jax.dtypes.canonicalize_dtype(x[0].dtype)
        gamma, beta = jnp.ones(V.shape[2:], dtype), jnp.zeros(V.shape[2:], dtype)
        bonus = None if init_bonus is None else init_bonus(key, (heads, K.shape[2] // heads), dtype)
        return GatedHeadsParams(gamma if affine else None, beta if shift else None, bonus)

    def forward(
        params: GatedHeadsParams, x: tuple[Tokens, ...], key: PRNGKeyArray | None = None
    ) -> tuple[Tokens, GatedHeadsResiduals]:
        params = check_params(where, params or GatedHeadsParams(), GatedHeadsParams)
        gamma, beta, bonus = params
        *steps, G = x
        Q, K, V, *log_decay = (by_head(A, heads) for A in steps)
        if decay is not None:
            log_decay = [jnp.zeros_like(Q[..., :1]) + jnp.asarray(decay, Q.dtype)[None, None, :, None]]
        rotated = None
        if rotary is not None:
            positions = jnp.arange(Q.shape[1])
            (Q, rotated_Q), (K, rotated_K) = rotate.forward(Q, positions), rotate.forward(K, positions)
            rotated = rotated_Q, rotated_K
        (Y, _), attention = attend.forward(Q * _scale(Q, scaled), K, V, *log_decay, bonus)
        N, of_norm = norm.forward(Y)
        N = side_by_side(N)
        A = N if gamma is None else N * as_row(gamma, 3)
        A = A if beta is None else A + as_row(beta, 3)
        Z, of_gate = gate.forward(G, A)
        return Z, GatedHeadsResiduals(params, rotated, attention, of_norm, N, of_gate)

    def backward(residuals: GatedHeadsResiduals, dZ: Tokens) -> tuple[tuple[Tokens, ...], GatedHeadsParams]:
        (gamma, beta, _), rotated, attention, of_norm, N, of_gate = residuals
        dG, dA = gate.backward(of_gate, dZ)
        dgamma = None if gamma is None else Hadamard(N, dA, gamma.dtype)
        dbeta = None if beta is None else Total(dA, beta.dtype)
        dN = dA if gamma is None else dA * as_row(gamma, 3)
        dY, *_ = norm.backward(of_norm, by_head(dN, heads))
        dQ, dK, dV, dlog_decay, dbonus, _ = attend.backward(attention, (dY, jnp.zeros_like(attention.S[0])))
        dQ = dQ * _scale(dQ, scaled)
        if rotated is not None:
            (dQ, *_), (dK, *_) = (rotate.backward(kept, d) for kept, d in zip(rotated, (dQ, dK), strict=True))
        steps = (dQ, dK, dV) if decay is not None else (dQ, dK, dV, dlog_decay)
        found: list[Factor | None] = [dgamma, dbeta, dbonus]
        return (*(side_by_side(d) for d in steps), dG), GatedHeadsParams._make(found)

    return Layer(init, forward, backward)


def _scale(Q: Heads, scaled: bool) -> float:
    """1 / √n."""
    return Q.shape[3] ** -0.5 if scaled else 1.0
