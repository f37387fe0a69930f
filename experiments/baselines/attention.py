"""Causal attention in plain JAX: jax.nn's, and chunks of queries that are computed again (Rabe and Staats 2021)."""

import functools

import jax
import jax.numpy as jnp

from baselines.pullback import pullback


def in_chunks(q, k, v, *, size):
    """`size` queries at a time; their weights are made again on the way back."""
    batch, tokens, heads, width = q.shape
    chunks = q.reshape(batch, tokens // size, size, heads, width).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # in a loop nothing is merged
    def one(first, q):
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / width**0.5
        seen = first + jnp.arange(size)[:, None] >= jnp.arange(tokens)
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf))
        return jnp.einsum("bhqk,bkhd->bqhd", weights, v)

    mixed = jax.lax.map(lambda both: one(*both), (size * jnp.arange(tokens // size), chunks))
    return mixed.swapaxes(0, 1).reshape(batch, tokens, heads, width)


def ways(*, tokens, **sizes):
    """Output and pullback."""
    plain = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    chunks = functools.partial(in_chunks, size=min(128, tokens))
    return {"jax.nn": pullback(plain), "jax.checkpoint, chunks": pullback(chunks)}
