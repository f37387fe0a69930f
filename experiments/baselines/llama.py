"""Llama in plain JAX: RMS norms, rotary positions, grouped queries, SwiGLU, a scan over the blocks."""

import functools

import jax
import jax.numpy as jnp
import optax
from jax import lax


def norm(x, scale, eps=1e-5):
    """RMS norm."""
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * scale


def rotary(x, base=500000.0):
    """Both halves of each head, rotated by the position."""
    tokens, half = x.shape[1], x.shape[3] // 2
    angles = jnp.arange(tokens)[:, None] * base ** (-jnp.arange(half) / half)
    cos, sin = (f(angles)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    one, other = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([one * cos - other * sin, one * sin + other * cos], axis=-1)


def block(x, layer, *, heads, kv_heads):
    """Attention and a gated mlp, each added to its input."""
    batch, tokens, width = x.shape
    y = norm(x, layer["norm1"])
    q = rotary((y @ layer["q"]).reshape(batch, tokens, heads, -1))
    k = rotary((y @ layer["k"]).reshape(batch, tokens, kv_heads, -1))
    v = (y @ layer["v"]).reshape(batch, tokens, kv_heads, -1)
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    x = x + mixed.reshape(batch, tokens, width) @ layer["o"]
    y = norm(x, layer["norm2"])
    return x + (jax.nn.silu(y @ layer["gate"]) * (y @ layer["up"])) @ layer["down"]


def loss(params, ids, following, *, heads, kv_heads, checkpoint=False, unroll=1):
    """Cross-entropy summed over the tokens, its mean over the batch."""

    def of_block(x, layer):
        return block(x, layer, heads=heads, kv_heads=kv_heads), None

    x = params["table"][ids]
    of_block = jax.checkpoint(of_block, prevent_cse=unroll > 1) if checkpoint else of_block
    x, _ = lax.scan(of_block, x, params["blocks"], unroll=unroll)
    logits = norm(x, params["norm"]) @ params["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, following).sum(1).mean()


def ways(*, heads, kv_heads, depth, **sizes):
    """Value and gradient, the loop over blocks rolled and unrolled."""
    forms = {
        "jax.grad, scan": {},
        "jax.grad, unrolled": {"unroll": depth},
        "jax.checkpoint, blocks": {"checkpoint": True},
    }
    of_heads = functools.partial(loss, heads=heads, kv_heads=kv_heads)
    return {name: jax.value_and_grad(functools.partial(of_heads, **form)) for name, form in forms.items()}


def parameters(theirs):
    """The table, the stacked blocks, the last norm and the head."""
    blocks = theirs["blocks"]
    mix, mlp = blocks["attention"]["mix"], blocks["mlp"]["mix"]
    stacked = {"q": mix.query.W, "k": mix.key.W, "v": mix.value.W, "o": mix.output.W}
    stacked |= {"gate": mlp.gate.W, "up": mlp.up.W, "down": mlp.down.W}
    stacked |= {"norm1": blocks["attention"]["norm"].gamma, "norm2": blocks["mlp"]["norm"].gamma}
    ends = {"table": theirs["embedding"].table, "norm": theirs["norm"].gamma, "head": theirs["head"].W}
    return {"blocks": stacked, **ends}
