"""What the two forms of attention share: who sees whom, the scores, sinks, and dropout.

Inside, heads are in groups that share keys and values, and stand in front of the tokens: scores have the shape (batch,
kv_heads, group, tokens, keys), with heads = kv_heads × group. In einsum these axes are called b, g, r, t, s, and
features n.
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from handgrad import meshes
from handgrad.factors import Total
from handgrad.factors.base import accumulator
from handgrad.rules.attention._arguments import Key, Keys, Mask, OfQueries, Options, Queries, Sinks, Values

GroupedQueries = Float[Array, "batch kv_heads group tokens n"]
GroupedKeys = Float[Array, "batch kv_heads keys n"]
OfGroupedQueries = Float[Array, "batch kv_heads group tokens 1"]
Scores = Float[Array, "batch kv_heads group tokens keys"]
GroupedBias = Shaped[Array, "#batch #kv_heads #group #tokens keys"]  # or mask


def without_hidden(Q: Queries, K: Keys, V: Values, mask: Mask | None) -> tuple[Queries, Keys, Values]:
    """Q, K and V with zeros where the mask hides a query from every key, or a key from every query: padding may hold
    NaN, and 0 · NaN is NaN."""
    if mask is None:
        return Q, K, V
    sees, is_seen = (jnp.expand_dims(jnp.any(mask, axis=axes), (2, 3)) for axes in ((1, 3), (1, 2)))
    return jnp.where(sees, Q, 0), jnp.where(is_seen, K, 0), jnp.where(is_seen, V, 0)


def grouped(A: Queries, kv_heads: int) -> GroupedQueries:
    """Heads in front of the tokens, as groups of neighbors: head h belongs to group h // (heads / kv_heads)."""
    batch, tokens, heads, n = A.shape
    return jnp.moveaxis(A.reshape(batch, tokens, kv_heads, heads // kv_heads, n), 1, 3)


def ungrouped(A: GroupedQueries) -> Queries:
    """The inverse of `grouped`."""
    batch, kv_heads, group, tokens, n = A.shape
    return jnp.moveaxis(A, 3, 1).reshape(batch, tokens, kv_heads * group, n)


def grouped_scores(
    B: Shaped[Array, "batch heads tokens keys"], kv_heads: int
) -> Shaped[Array, "batch kv_heads_or_1 group_or_1 tokens keys"]:
    """A bias or a mask, grouped; an axis of 1 stays 1."""
    heads = (1, 1) if B.shape[1] == 1 else (kv_heads, B.shape[1] // kv_heads)
    return B.reshape(B.shape[0], *heads, *B.shape[2:])


def product(subscripts: str, A: Array, B: Array) -> Array:
    """einsum with its sums in at least float32. The queries of a group's heads, r and t, are one axis of it: XLA has a
    product of two matrices without a copy where both are stacks of matrices."""
    one, other = (side.reshape(*side.shape[:2], math.prod(side.shape[2:-1]), side.shape[-1]) for side in (A, B))
    C = meshes.einsum(subscripts.replace("rt", "q"), one, other, accumulator(A, B))
    return C.reshape(*A.shape[:4], C.shape[-1]) if subscripts.endswith(("rts", "rtn")) else C


def scores(Q: GroupedQueries, K: GroupedKeys, options: Options) -> Scores:
    """S = scale Q Kᵀ, before a softcap."""
    return options.scale * product("bgrtn,bgsn->bgrts", Q, K)


def capped(S: Scores, options: Options) -> Scores:
    """cap tanh(S / cap), or S itself."""
    return S if options.softcap is None else options.softcap * jnp.tanh(S / options.softcap)


def through_softcap(dZ: Scores, S: Scores | None, options: Options) -> Scores:
    """dZ ∘ (1 − tanh²(S / cap)), as dZ ∘ 4 e / (1 + e)² with e = e^(−2 |S| / cap): tanh may round to 1."""
    if options.softcap is None or S is None:
        return dZ
    E = jnp.exp(-2 * jnp.abs(S / options.softcap))
    return dZ * (4 * E / (1 + E) ** 2)


def visible(i: Int[Array, " tokens"], j: Int[Array, " keys"], options: Options) -> Bool[Array, "tokens keys"] | None:
    """Whether `causal` and the window let query i see key j; None where they hide nothing."""
    if not options.causal and options.window is None:
        return None
    ahead = j[None, :] - i[:, None]
    if options.window is None:
        return ahead <= 0
    return (-options.window < ahead) & (ahead < (1 if options.causal else options.window))


def logits(
    S: Scores,
    bias: GroupedBias | None,
    mask: GroupedBias | None,
    i: Int[Array, " tokens"],
    j: Int[Array, " keys"],
    options: Options,
    inside: Bool[Array, "tokens keys"] | None = None,
) -> Scores:
    """Z = S + B − slope |i − j|, S capped; −∞ where the mask, `causal`, the window or `inside` hide key j from query
    i."""
    Z = capped(S, options)
    Z = Z if bias is None else Z + bias
    if options.alibi is not None:
        slopes = jnp.asarray(options.alibi, Z.dtype).reshape(1, *Z.shape[1:3], 1, 1)
        Z = Z - slopes * jnp.abs(j[None, :] - i[:, None])[None, None, None]
    of_all = [A[None, None, None] for A in (visible(i, j, options), inside) if A is not None]
    for hides_not in (*of_all, *(() if mask is None else (mask,))):
        Z = jnp.where(hides_not, Z, -jnp.inf)
    return Z


def sink_logits(
    Q: GroupedQueries, sinks: Sinks | None, dtype: DTypeLike
) -> Float[Array, "batch kv_heads group tokens 1"]:
    """The logit of each query that belongs to no key: its head's sink, −∞ without sinks."""
    none = jnp.full_like(Q[..., :1], -jnp.inf, dtype=dtype)
    return none if sinks is None else jnp.maximum(none, sinks.astype(dtype).reshape(1, *Q.shape[1:3], 1, 1))


def sinks_factor(share: OfQueries | None, D: OfQueries, sinks: Sinks | None) -> Total | None:
    """dsinks = −share ∘ D, summed over queries: the softmax's cotangent at the sink, whose value is 0."""
    if share is None or sinks is None:
        return None
    return Total(jnp.squeeze(-share * D, -1).astype(jnp.promote_types(D.dtype, sinks.dtype)), sinks.dtype)


def exponential(Z: Array, M: Array) -> Array:
    """e^(Z − M), and 0 where Z = −∞ and M as well."""
    return jnp.exp(Z - jnp.where(jnp.isneginf(M), 0, M))


def normalized(E: Array, Z: Array, total: Array) -> Array:
    """P = E / total, and 0 where Z = −∞, where total may be 0 (a query that sees no key) or NaN as well."""
    return jnp.where(jnp.isneginf(Z), 0, E / jnp.where(total == 0, 1, total))


def dropped(P: Scores, key: Key | None, i: Int[Array, " tokens"], j: Int[Array, " keys"], options: Options) -> Scores:
    """P ∘ R, with R = 0 or 1 / (1 − dropout). R of a query and a key is drawn from a random key of theirs, so that a
    tile can draw its part alone and both forms drop the same."""
    if key is None or not options.dropout:
        return P
    batch, kv_heads, group = P.shape[:3]

    def draw(i: Array, j: Array) -> Array:
        of_both = jax.random.fold_in(jax.random.fold_in(key, i), j)
        return jax.random.bernoulli(of_both, 1 - options.dropout, (batch, kv_heads * group))

    kept = jax.vmap(jax.vmap(draw, (None, 0), -1), (0, None), -2)(i, j).reshape(P.shape)
    return jnp.where(kept, P / (1 - options.dropout), 0)


def sum_to(dZ: Scores, B: Shaped[Array, "#batch #kv_heads #group _ _"]) -> GroupedBias:
    """dZ summed over the axes along which the bias was broadcast."""
    return jnp.sum(dZ, axis=tuple(axis for axis in range(4) if B.shape[axis] == 1), keepdims=True)
