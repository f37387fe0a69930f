"""The gate of a mixture of experts, by ranks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from handgrad import rules
from handgrad.cases.case import Case, edge, fixed, normal


def chosen(Z: Array, k: int) -> Bool[Array, "*shape"]:
    """Whether a logit's rank is below k: the sort is stable, so that of equal logits the first comes first."""
    return jnp.argsort(jnp.argsort(-Z, axis=-1, stable=True), axis=-1) < k


def top_k_gate(Z: Array, k: int, softmax_over: str = "chosen") -> Array:
    """The softmax of the chosen logits, or the chosen part of the softmax."""
    if softmax_over == "chosen":
        return jax.nn.softmax(Z, axis=-1, where=chosen(Z, k)) * chosen(Z, k)
    return jnp.where(chosen(Z, k), jax.nn.softmax(Z, axis=-1), 0)


def load_balancing_loss(Z: Array, k: int, counts: str = "example") -> Array:
    """Shares of tokens times mean probabilities."""
    tokens = Z.reshape(Z.shape[0], -1, Z.shape[-1])
    share = chosen(tokens, k).mean(1 if counts == "example" else (0, 1), keepdims=True, dtype=Z.dtype) / k
    return Z.shape[-1] * (share * jax.nn.softmax(tokens, axis=-1)).mean(1).sum(-1)


TIES = [[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 2.0, 2.0], [3.0, 3.0, -1.0, 3.0]]

CASES = [
    Case(rules.top_k_gate, "tokens", normal((3, 2, 4), scale=2.0), top_k_gate, {"k": 2}),
    edge(rules.top_k_gate, "ties", fixed(TIES), top_k_gate, {"k": 2}),
    Case(rules.top_k_gate, "tokens", normal((3, 2, 4)), top_k_gate, {"k": 1, "softmax_over": "all"}),
    edge(rules.top_k_gate, "every-expert", normal((5, 3)), top_k_gate, {"k": 3}),
    Case(rules.load_balancing_loss, "tokens", normal((3, 5, 4), scale=2.0), load_balancing_loss, {"k": 2}),
    Case(rules.load_balancing_loss, "space", normal((3, 2, 2, 4)), load_balancing_loss, {"k": 1, "counts": "batch"}),
    edge(rules.load_balancing_loss, "rows", normal((5, 3)), load_balancing_loss, {"k": 2}),
]
