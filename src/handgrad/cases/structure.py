"""The gate of a mixture of experts, by ranks; quantization, by its surrogates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from handgrad import rules
from handgrad.cases.case import Case, Draw, edge, fixed, normal


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


def vector_quantize(X: Array, codebook: Array, beta: float = 0.25) -> tuple[Array, Array]:
    """Of all squared distances the smallest; both losses, each with the other side held."""
    dtype, wide = jnp.result_type(X, codebook), jnp.promote_types(jnp.result_type(X, codebook), jnp.float32)
    X, codebook = X.astype(wide), codebook.astype(wide)
    apart = X[..., None, :] - jnp.broadcast_to(codebook, (*X.shape[:-1], *codebook.shape))
    E = jax.nn.one_hot(jnp.argmin(jnp.sum(apart**2, -1), -1), len(codebook), dtype=wide)
    E = jnp.einsum("...c,cn->...n", E, codebook)
    still = jax.lax.stop_gradient
    C = (E - still(X)) ** 2 + beta * (still(E) - X) ** 2
    return (X + still(E - X)).astype(dtype), jnp.sum(C.reshape(len(C), -1), 1).astype(dtype)


def lsq_quantize(X: Array, s: Array, bits: int = 8, signed: bool = True, gradient_scale: float | None = None) -> Array:
    """The paper's pseudocode: gradscale and roundpass."""
    still = jax.lax.stop_gradient
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    numbers = X.size // X.shape[0] // (X.shape[-1] if s.ndim else 1)
    scaled = s * (math.sqrt(1 / (numbers * high)) if gradient_scale is None else gradient_scale)
    s = jnp.broadcast_to(still(s - scaled) + scaled, X.shape)
    v = X / s
    v = jnp.where(v <= low, low, jnp.where(v >= high, high, v))
    return (still(jnp.round(v) - v) + v) * s


def with_step(shape: tuple[int, ...], *step: int) -> Draw:
    """Numbers, and steps of about a third."""
    return lambda rng: (rng.standard_normal(shape), np.asarray(rng.uniform(0.2, 0.4, step)))


TIES = [[1.0, 1.0, 1.0, 0.0], [0.0, 2.0, 2.0, 2.0], [3.0, 3.0, -1.0, 3.0]]

VQ, LSQ = rules.vector_quantize, rules.lsq_quantize

CASES = [
    Case(rules.top_k_gate, "tokens", normal((3, 2, 4), scale=2.0), top_k_gate, {"k": 2}),
    edge(rules.top_k_gate, "ties", fixed(TIES), top_k_gate, {"k": 2}),
    Case(rules.top_k_gate, "tokens", normal((3, 2, 4)), top_k_gate, {"k": 1, "softmax_over": "all"}),
    edge(rules.top_k_gate, "every-expert", normal((5, 3)), top_k_gate, {"k": 3}),
    Case(rules.load_balancing_loss, "tokens", normal((3, 5, 4), scale=2.0), load_balancing_loss, {"k": 2}),
    Case(rules.load_balancing_loss, "space", normal((3, 2, 2, 4)), load_balancing_loss, {"k": 1, "counts": "batch"}),
    edge(rules.load_balancing_loss, "rows", normal((5, 3)), load_balancing_loss, {"k": 2}),
    Case(VQ, "tokens", normal((3, 4, 2), (5, 2)), vector_quantize, estimator=True),
    edge(
        VQ,
        "ties",
        fixed([[0.5, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]),
        vector_quantize,
        {"beta": 1.0},
        estimator=True,
    ),
    Case(LSQ, "rows", with_step((4, 6)), lsq_quantize, {"bits": 3}, estimator=True),
    edge(LSQ, "features", with_step((3, 2, 4), 4), lsq_quantize, {"bits": 2, "signed": False}, estimator=True),
    edge(
        LSQ,
        "ends",
        fixed([[-1.0, -1.5, 0.75, 1.0, 0.125, 0.625]], 0.25),
        lsq_quantize,
        {"bits": 3, "gradient_scale": 0.5},
        estimator=True,
    ),
]
