"""What the two forms of attention share: their arguments, masking, the scores, and dropout.

Inside, heads are in groups that share keys and values, and stand in front of the tokens: scores have the shape (batch,
kv_heads, group, tokens, keys), with heads = kv_heads × group. In einsum these axes are called b, g, r, t, s, and
features n.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt32

from handgrad import meshes
from handgrad.checks import InputError, check_array, check_count, check_positive, check_shape, describe
from handgrad.factors.base import accumulator

Queries = Float[Array, "batch tokens heads n"]
Keys = Float[Array, "batch keys kv_heads n"]
Values = Float[Array, "batch keys kv_heads n_v"]
Bias = Float[Array, "#batch #heads #tokens keys"]
Mask = Bool[Array, "#batch #heads #tokens keys"]
Key = PRNGKeyArray | UInt32[Array, " words"]  # of the new style, or the bare numbers of jax.random.PRNGKey
GroupedQueries = Float[Array, "batch kv_heads group tokens n"]
GroupedKeys = Float[Array, "batch kv_heads keys n"]
Scores = Float[Array, "batch kv_heads group tokens keys"]
GroupedBias = Shaped[Array, "#batch #kv_heads #group #tokens keys"]  # or mask


class Options(NamedTuple):
    """The options of attention, checked."""

    scale: float
    causal: bool
    window: int | None
    softcap: float | None
    dropout: float


def check_options(
    where: str, n: int, scale: float | None, causal: bool, window: int | None, softcap: float | None, dropout: float
) -> Options:
    """Every option is what it should be; a scale of None is 1 / √n."""
    if scale is not None:
        check_positive(where, "scale", scale)
    if not isinstance(causal, bool):
        raise InputError(f"{where}: causal must be True or False, got {causal!r}")
    if window is not None:
        check_count(where, "window", window)
    if softcap is not None:
        check_positive(where, "softcap", softcap)
    if isinstance(dropout, bool) or not (isinstance(dropout, int | float | np.number) and 0 <= dropout < 1):
        raise InputError(f"{where}: dropout must be in [0, 1), got {dropout!r}")
    cap = None if softcap is None else float(softcap)
    return Options(n**-0.5 if scale is None else float(scale), causal, window, cap, float(dropout))


def check_arguments(
    where: str, Q: Array, K: Array, V: Array, bias: Array | None, mask: Array | None, key: Array | None
) -> None:
    """Queries, keys and values fit each other; bias and mask fit the scores."""
    for name, A in (("Q", Q), ("K", K), ("V", V)):
        check_array(where, name, A)
        if len(A.shape) != 4:
            raise InputError(f"{where}: {name} must have shape (batch, tokens, heads, features), got {describe(A)}")
        if 0 in A.shape[1:]:
            raise InputError(f"{where}: {name} must have at least one token, head and feature, got {describe(A)}")
    (batch, tokens, heads, n), (_, keys, kv_heads, _) = Q.shape, K.shape
    check_shape(where, "K", K, (batch, keys, kv_heads, n), f"to meet Q {Q.shape}")
    check_shape(where, "V", V, (batch, keys, kv_heads, V.shape[3]), f"to meet K {K.shape}")
    if heads % kv_heads:
        raise InputError(f"{where}: K must have a number of heads that divides Q's {heads}, got {describe(K)}")
    scores = (batch, heads, tokens, keys)
    if bias is not None:
        check_array(where, "bias", bias)
        _check_against_scores(where, "bias", bias, scores)
    if mask is not None:
        if getattr(mask, "dtype", None) != np.bool_:
            raise InputError(f"{where}: mask must be of booleans, got {describe(mask)}")
        _check_against_scores(where, "mask", mask, scores)
    if key is not None and not _is_key(key):
        raise InputError(f"{where}: key must be a single random key or None, got {describe(key)}")


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


def logits(S: Scores, bias: Array | None, mask: Array | None, seen: Array | None, options: Options) -> Scores:
    """Z = S + B, S capped; −∞ where the mask or `seen` (tokens, keys) hide the key from the query."""
    S = capped(S, options)
    Z = S if bias is None else S + bias
    for hides_not in (mask, None if seen is None else seen[None, None, None]):
        Z = Z if hides_not is None else jnp.where(hides_not, Z, -jnp.inf)
    return Z


def exponential(Z: Array, M: Array) -> Array:
    """e^(Z − M), and 0 where Z = −∞ and M as well."""
    return jnp.exp(Z - jnp.where(jnp.isneginf(M), 0, M))


def normalized(E: Scores, Z: Scores, total: Array) -> Scores:
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


def _check_against_scores(where: str, name: str, B: Array, scores: tuple[int, ...]) -> None:
    """`B` has the shape of the scores; batch, heads and tokens may be 1."""
    fits = len(B.shape) == 4 and all(a in (b, 1) for a, b in zip(B.shape[:3], scores[:3], strict=True))
    if not (fits and B.shape[3] == scores[3]):
        raise InputError(
            f"{where}: {name} must have the scores' shape {scores} (batch, heads, tokens, keys), "
            f"of which the first three may be 1, got {describe(B)}"
        )


def _is_key(key: object) -> bool:
    """Whether `key` is one random key, new or old style."""
    if not isinstance(key, jax.Array | np.ndarray):
        return False
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.shape == ()
    return key.dtype == np.uint32 and key.ndim == 1
