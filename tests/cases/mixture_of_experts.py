"""Rows of rules/mixture_of_experts.py."""

import jax
import jax.numpy as jnp
import numpy as np

from cases.case import Case, fixed, normal
from handgrad import layers


def top_k_gate(Z, k, softmax_over="chosen"):
    """Chosen by their ranks: the sort is stable, so that of equal logits the first comes first."""
    chosen = jnp.argsort(jnp.argsort(-Z, axis=-1, stable=True), axis=-1) < k
    if softmax_over == "chosen":
        return jax.nn.softmax(Z, axis=-1, where=chosen) * chosen
    return jnp.where(chosen, jax.nn.softmax(Z, axis=-1), 0)


def load_balancing_loss(Z, k, counts="example"):
    tokens = Z.reshape(Z.shape[0], -1, Z.shape[-1])
    chosen = jnp.argsort(jnp.argsort(-tokens, axis=-1, stable=True), axis=-1) < k
    share = chosen.mean(1 if counts == "example" else (0, 1), keepdims=True, dtype=Z.dtype) / k
    return Z.shape[-1] * (share * jax.nn.softmax(tokens, axis=-1)).mean(1).sum(-1)


TIES = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 2.0, 2.0], [3.0, 3.0, -1.0, 3.0]])

CASES = [
    Case("top_k_gate", "tokens", normal((3, 2, 4), scale=2.0), top_k_gate, {"k": 2}),
    Case("top_k_gate", "ties", fixed(TIES), top_k_gate, {"k": 2}),
    Case("top_k_gate", "of-all", normal((3, 2, 4)), top_k_gate, {"k": 1, "softmax_over": "all"}),
    Case("top_k_gate", "every-expert", normal((5, 3)), top_k_gate, {"k": 3}),
    Case("load_balancing_loss", "tokens", normal((3, 5, 4), scale=2.0), load_balancing_loss, {"k": 2}),
    Case("load_balancing_loss", "batch", normal((3, 2, 2, 4)), load_balancing_loss, {"k": 1, "counts": "batch"}),
    Case("load_balancing_loss", "rows", normal((5, 3)), load_balancing_loss, {"k": 2}),
]

LAYERS = {
    "top_k_gate": lambda: layers.mixture_of_experts(layers.linear(3), 4, k=2),
    "load_balancing_loss": lambda: layers.mixture_of_experts(layers.linear(3), 4, k=2, balance=True),
}
