"""Rows of rules/attention.py."""

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import Case, normal
from handgrad import layers


def attention(
    Q, K, V, bias=None, mask=None, key=None, scale=None, causal=False, window=None, softcap=None, dropout=0.0, **_
):
    """From the definition: keys and values repeated for each head of a group, heads in front."""
    tokens, keys, heads = Q.shape[1], K.shape[1], Q.shape[2]
    Q, K, V = (jnp.swapaxes(jnp.repeat(A, heads // A.shape[2], axis=2), 1, 2) for A in (Q, K, V))
    S = (Q @ jnp.matrix_transpose(K)) * (1 / np.sqrt(Q.shape[-1]) if scale is None else scale)
    S = S if softcap is None else softcap * jnp.tanh(S / softcap)
    S = S if bias is None else S + jnp.broadcast_to(bias, S.shape)
    seen = np.ones((tokens, keys), bool)
    seen = np.tril(seen) if causal else seen
    seen = seen if window is None else np.triu(np.tril(seen, window - 1), 1 - window)
    seen = jnp.broadcast_to(seen[None, None], S.shape)
    seen = seen if mask is None else seen & jnp.broadcast_to(mask, S.shape)
    P = jax.nn.softmax(S, axis=-1, where=seen)
    if key is not None and dropout:
        column = jax.vmap(lambda j: jax.random.bernoulli(jax.random.fold_in(key, j), 1 - dropout, P.shape[:3]), 0, -1)
        P = P * column(jnp.arange(keys)) / (1 - dropout)
    return jnp.swapaxes(P @ V, 1, 2).astype(jnp.result_type(Q, K, V))


def shapes(batch, tokens, keys, heads, kv_heads, n, n_v):
    return (batch, tokens, heads, n), (batch, keys, kv_heads, n), (batch, keys, kv_heads, n_v)


def with_bias(bias, *sizes):
    return normal(*shapes(*sizes), bias)


def with_mask(shape, *sizes):
    """A mask that hides about a third, and leaves every query its first key."""

    def draw(rng):
        mask = rng.uniform(size=shape) < 0.6
        mask[..., 0] = True
        return (*normal(*shapes(*sizes))(rng), None, mask)

    return draw


def with_everything(bias, mask, *sizes):
    def draw(rng):
        Q, K, V, _, allowed = with_mask(mask, *sizes)(rng)
        return Q, K, V, rng.standard_normal(bias), allowed, jax.random.key(3)

    return draw


OPTIONS = {"causal": True, "window": 3, "softcap": 2.0, "scale": 0.7}
# Random bits are what takes longest to compile, by far, and don't round: they come in float64 alone.
EVERYTHING = {**OPTIONS, "dropout": 0.4}


CASES = [
    Case("attention", "cross", normal(*shapes(2, 3, 5, 2, 2, 4, 3)), attention),
    Case("attention", "options", with_bias((1, 4, 5, 5), 2, 5, 5, 4, 2, 2, 3), attention, OPTIONS),
    Case(
        "attention",
        "everything",
        with_everything((2, 1, 5, 5), (1, 4, 5, 5), 2, 5, 5, 4, 2, 3, 2),
        attention,
        EVERYTHING,
        reduced=(),
    ),
    Case("attention", "one-token", with_mask((2, 1, 1, 3), 2, 1, 3, 1, 1, 1, 1), attention),
    Case("attention", "empty", normal(*shapes(0, 2, 3, 2, 1, 2, 2)), attention),
]


LAYERS = {"attention": lambda: layers.multi_head_attention(2)}
