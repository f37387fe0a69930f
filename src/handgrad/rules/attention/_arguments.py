"""The arguments and options of attention, checked: what both forms take."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from handgrad.checks import (
    InputError,
    check_array,
    check_count,
    check_flags,
    check_positive,
    check_shape,
    check_share,
    describe,
)

Queries = Float[Array, "batch tokens heads n"]
Keys = Float[Array, "batch keys kv_heads n"]
Values = Float[Array, "batch keys kv_heads n_v"]
Bias = Float[Array, "#batch #heads #tokens keys"]
Mask = Bool[Array, "#batch #heads #tokens keys"]
Sinks = Float[Array, " heads"]
OfQueries = Float[Array, "batch tokens heads 1"]  # a number for each query
Key = PRNGKeyArray | UInt32[Array, " words"]  # of the new style, or the bare numbers of jax.random.PRNGKey


class Options(NamedTuple):
    """The options of attention, checked."""

    scale: float
    causal: bool
    window: int | None
    softcap: float | None
    dropout: float
    alibi: tuple[float, ...] | None = None


def check_options(
    where: str,
    queries: tuple[int, ...],
    scale: float | None,
    causal: bool,
    window: int | None,
    softcap: float | None,
    dropout: float,
    alibi: Sequence[float] | None = None,
) -> Options:
    """Every option is what it should be, for queries of shape (..., heads, n); a scale of None is 1 / √n."""
    *_, heads, n = queries
    if scale is not None:
        check_positive(where, "scale", scale)
    check_flags(where, causal=causal)
    if window is not None:
        check_count(where, "window", window)
    if softcap is not None:
        check_positive(where, "softcap", softcap)
    check_share(where, "dropout", dropout)
    if alibi is not None:
        if not (isinstance(alibi, Sequence) and len(alibi) == heads):
            raise InputError(f"{where}: alibi must be {heads} slopes, one for each head, got {alibi!r}")
        for slope in alibi:
            check_positive(where, "each slope of alibi", slope)
    cap = None if softcap is None else float(softcap)
    slopes = None if alibi is None else tuple(map(float, alibi))
    return Options(n**-0.5 if scale is None else float(scale), causal, window, cap, float(dropout), slopes)


def check_arguments(
    where: str,
    Q: Array,
    K: Array,
    V: Array,
    bias: Array | None,
    mask: Array | None,
    key: Array | None,
    sinks: Array | None,
) -> None:
    """Queries, keys and values fit each other; bias and mask fit the scores, sinks the heads."""
    for name, A in (("Q", Q), ("K", K), ("V", V)):
        check_array(where, name, A)
        if len(A.shape) != 4:
            raise InputError(f"{where}: {name} must have shape (batch, tokens, heads, features), got {describe(A)}")
        if 0 in A.shape[1:]:
            raise InputError(f"{where}: {name} must have at least one token, head and feature, got {describe(A)}")
    (batch, tokens, heads, n), (_, keys, kv_heads, _) = Q.shape, K.shape
    check_shape(where, "K", K, (batch, keys, kv_heads, n), f"to meet Q {Q.shape}")
    if heads % kv_heads:
        raise InputError(f"{where}: K must have a number of heads that divides Q's {heads}, got {describe(K)}")
    check_shape(where, "V", V, (batch, keys, kv_heads, V.shape[3]), f"to meet K {K.shape}")
    scores = (batch, heads, tokens, keys)
    if bias is not None:
        check_array(where, "bias", bias)
        check_against_scores(where, "bias", bias, scores)
    if mask is not None:
        if getattr(mask, "dtype", None) != np.bool_:
            raise InputError(f"{where}: mask must be of booleans, got {describe(mask)}")
        check_against_scores(where, "mask", mask, scores)
    if key is not None and not _is_key(key):
        raise InputError(f"{where}: key must be a single random key or None, got {describe(key)}")
    if sinks is not None:
        check_array(where, "sinks", sinks)
        check_shape(where, "sinks", sinks, (heads,), "(one for each head)")


def check_against_scores(where: str, name: str, B: Array, scores: tuple[int, ...]) -> None:
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
