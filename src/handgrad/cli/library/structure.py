"""Tensor contraction, LoRA and the gate of a mixture of experts."""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad.cli.library.entry import Entry, normal


def einsum(A: Any, B: Any, subscripts: str) -> Any:
    """jax.numpy's."""
    return jnp.einsum(subscripts, A, B)


def lora_linear(X: Any, W: Any, A: Any, B: Any, b: Any = None, scale: float = 1.0) -> Any:
    """By way of the merged matrix, W + s A B."""
    Y = jnp.einsum("...i,io->...o", X, W + scale * jnp.einsum("ir,ro->io", A, B))
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def top_k_gate(Z: Any, k: int, softmax_over: str = "chosen") -> Any:
    """The k largest are those that are no smaller than the k-th; no two are alike."""
    chosen = jnp.sort(Z, axis=-1)[..., -k : Z.shape[-1] - k + 1] <= Z
    if softmax_over == "chosen":
        return jax.nn.softmax(Z, axis=-1, where=chosen)
    return jnp.where(chosen, jax.nn.softmax(Z, axis=-1), 0)


def load_balancing_loss(Z: Any, k: int, counts: str = "example") -> Any:
    """Shares of tokens times mean probabilities, over axis 1."""
    chosen = jnp.sort(Z, axis=-1)[..., -k : Z.shape[-1] - k + 1] <= Z
    share = jnp.mean(chosen, axis=1 if counts == "example" else (0, 1), keepdims=True, dtype=Z.dtype)
    return Z.shape[-1] / k * jnp.sum(jnp.mean(share * jax.nn.softmax(Z, axis=-1), axis=1), axis=-1)


STRUCTURE = [
    Entry("einsum", "scores", normal((2, 3, 2, 4), (2, 5, 2, 4)), einsum, {"subscripts": "bthd,bshd->bhts"}),
    Entry("einsum", "diagonals", normal((3, 4, 3), (5, 2)), einsum, {"subscripts": "iji,kl->jk"}),
    Entry("contraction", "heads", normal((3, 2, 2, 4), (2, 4, 3)), einsum, {"subscripts": "bthi,hio->btho"}),
    Entry("lora_linear", "rows", normal((5, 4), (4, 3), (4, 2), (2, 3), (3,)), lora_linear, {"scale": 0.5}),
    Entry("lora_linear", "tokens", normal((3, 2, 4), (4, 3), (4, 1), (1, 3)), lora_linear, {"scale": 2.0}),
    Entry("top_k_gate", "tokens", normal((3, 2, 5)), top_k_gate, {"k": 2}),
    Entry("top_k_gate", "rows", normal((5, 4)), top_k_gate, {"k": 1, "softmax_over": "all"}),
    Entry("load_balancing_loss", "tokens", normal((3, 5, 4)), load_balancing_loss, {"k": 2}),
    Entry("load_balancing_loss", "tokens", normal((3, 5, 4)), load_balancing_loss, {"k": 1, "counts": "batch"}),
]
