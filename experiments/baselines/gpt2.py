"""GPT-2 in plain JAX: one projection for queries, keys and values, a scan over the blocks, a tied head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


def norm(x, layer, eps=1e-5):
    """Layer norm."""
    mean, variance = jnp.mean(x, -1, keepdims=True), jnp.var(x, -1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + eps) * layer["scale"] + layer["shift"]


def linear(x, layer):
    """x W + b."""
    return x @ layer["w"] + layer["b"]


def block(x, layer, *, heads, attention):
    """Attention and an mlp, each added to its input."""
    batch, tokens, width = x.shape
    qkv = linear(norm(x, layer["norm1"]), layer["qkv"])
    q, k, v = (a.reshape(batch, tokens, heads, -1) for a in jnp.split(qkv, 3, axis=-1))
    mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=attention)
    x = x + linear(mixed.reshape(batch, tokens, width), layer["out"])
    hidden = jax.nn.gelu(linear(norm(x, layer["norm2"]), layer["up"]), approximate=True)
    return x + linear(hidden, layer["down"])


def cross_entropy(x, table, following):
    """Of each token, by a tied head."""
    logits = x @ table.T
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))  # in bfloat16 its sum would lose the digits
    return optax.softmax_cross_entropy_with_integer_labels(logits, following)


def summed_in_chunks(x, table, following, chunk):
    """The same summed over all tokens, the logits of `chunk` at a time, which the backward pass computes again."""

    @functools.partial(jax.checkpoint, prevent_cse=False)  # in a loop nothing is merged
    def step(total, rows):
        x, following = rows
        return total + cross_entropy(x, table, following).sum(), None

    size = min(chunk, following.size)
    rows = x.reshape(-1, size, x.shape[-1]), following.reshape(-1, size)
    total, _ = lax.scan(step, jnp.zeros((), jnp.promote_types(x.dtype, jnp.float32)), rows)
    return total


def loss(params, ids, following, *, heads, checkpoint=False, unroll=1, attention=None, chunk=None):
    """Cross-entropy summed over the tokens, its mean over the batch; attention by XLA, or "cudnn" on its GPUs."""

    def of_block(x, layer):
        return block(x, layer, heads=heads, attention=attention), None

    x = params["table"][ids] + params["positions"][: ids.shape[1]]
    of_block = jax.checkpoint(of_block, prevent_cse=unroll > 1) if checkpoint else of_block
    x, _ = lax.scan(of_block, x, params["blocks"], unroll=unroll)
    x = norm(x, params["norm"])
    if chunk is not None:
        return summed_in_chunks(x, params["table"], following, chunk) / len(x)
    return cross_entropy(x, params["table"], following).sum(1).mean()


def ways(*, heads, depth, residuals="save", **sizes):
    """Value and gradient, the loop over blocks rolled and unrolled."""
    forms = {
        "jax.grad, scan": {},
        "jax.grad, unrolled": {"unroll": depth},
        "jax.checkpoint, blocks": {"checkpoint": True},
    }
    if residuals == "recompute":
        forms["jax.checkpoint, blocks unrolled"] = {"checkpoint": True, "unroll": depth}
        forms["jax.checkpoint, blocks, loss in chunks"] = {"checkpoint": True, "chunk": 256}
    return {name: jax.value_and_grad(functools.partial(loss, heads=heads, **form)) for name, form in forms.items()}


def parameters(theirs):
    """Tables, norms and the stacked blocks."""
    body, blocks = theirs["body"], theirs["body"]["blocks"]
    mix, mlp = blocks["attention"]["mix"], blocks["mlp"]
    merged = (mix.query, mix.key, mix.value)
    qkv = {"w": np.concatenate([one.W for one in merged], -1), "b": np.concatenate([one.b for one in merged], -1)}
    stacked = {"norm1": of_norm(blocks["attention"]["norm"]), "norm2": of_norm(mlp["norm"]), "qkv": qkv}
    stacked |= {"out": of_linear(mix.output), "up": of_linear(mlp["up"]), "down": of_linear(mlp["down"])}
    tables = {"table": theirs["embedding"].table, "positions": body["positions"].table}
    return {**tables, "blocks": stacked, "norm": of_norm(body["norm"])}


def of_norm(theirs):
    """Scale and shift."""
    return {"scale": theirs.gamma, "shift": theirs.beta}


def of_linear(theirs):
    """Weights and bias."""
    return {"w": theirs.W, "b": theirs.b}
