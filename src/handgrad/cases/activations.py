"""Activations beside jax.nn's: elementwise, gated units, the softmax family, dropout; rounding and draws, by
surrogates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Function, Rng, Shape, edge, fixed, normal


def identity(X: Array) -> Array:
    """X."""
    return X


def sigmoid(X: Array) -> Array:
    """1 / (1 + exp(−X)), by a logarithm that doesn't overflow."""
    return jnp.exp(-jnp.logaddexp(-X, 0))


def softplus(X: Array) -> Array:
    """log(1 + exp X)."""
    return jnp.logaddexp(X, 0)


def relu(X: Array) -> Array:
    """max(X, 0)."""
    return jnp.where(X > 0, X, 0)


def leaky_relu(X: Array, negative_slope: float = 0.01) -> Array:
    """X, or a share of it below 0."""
    return jnp.where(X >= 0, X, negative_slope * X)


def elu(X: Array, alpha: float = 1.0) -> Array:
    """X, or α (exp X − 1) below 0."""
    return jnp.where(X > 0, X, alpha * jnp.expm1(jnp.where(X > 0, 0, X)))


def selu(X: Array) -> Array:
    """λ elu(X, α) with the two constants of Klambauer et al. (2017)."""
    return 1.0507009873554804934193349852946 * elu(X, 1.6732632423543772848170429916717)


def prelu(X: Array, s: Array) -> Array:
    """X, or s X below 0."""
    return jnp.where(X < 0, jnp.broadcast_to(s, X.shape) * X, X)


def squared_relu(X: Array) -> Array:
    """The square of max(X, 0)."""
    return jnp.square(jnp.maximum(X, 0))


def hard_sigmoid(X: Array) -> Array:
    """X + 3 between 0 and 6, divided by 6."""
    return jnp.minimum(jnp.maximum(X + 3, 0), 6) / 6


def hard_swish(X: Array) -> Array:
    """X times its hard sigmoid."""
    return X * hard_sigmoid(X)


def silu(X: Array) -> Array:
    """X σ(X)."""
    return X * sigmoid(X)


def mish(X: Array) -> Array:
    """X tanh(softplus X)."""
    return X * jnp.tanh(softplus(X))


def gelu(X: Array, approximate: bool = False) -> Array:
    """X Φ(X), or its approximation by tanh."""
    if approximate:
        return X / 2 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi).astype(X.dtype) * (X + 0.044715 * X**3)))
    return X / 2 * (1 + jax.scipy.special.erf(X / 2**0.5))


def glu(U: Array, V: Array) -> Array:
    """σ(U) ∘ V."""
    return sigmoid(U) * V


def swiglu(U: Array, V: Array) -> Array:
    """silu(U) ∘ V."""
    return silu(U) * V


def geglu(U: Array, V: Array, approximate: bool = False) -> Array:
    """gelu(U) ∘ V."""
    return gelu(U, approximate) * V


def softmax(X: Array) -> Array:
    """exp X, normalized along the last axis."""
    return jnp.exp(log_softmax(X))


def log_softmax(X: Array) -> Array:
    """X − log Σ exp X along the last axis."""
    shifted = X - jax.lax.stop_gradient(jnp.max(X, -1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), -1, keepdims=True))


def logsumexp(X: Array) -> Array:
    """log Σ exp X along the last axis."""
    largest = jax.lax.stop_gradient(jnp.max(X, -1))
    return largest + jnp.log(jnp.sum(jnp.exp(X - jnp.expand_dims(largest, -1)), -1))


def dropout(X: Array, key: Array | None, rate: float) -> Array:
    """X where it is kept, divided by the probability of that."""
    if key is None:
        return X * 1
    return jnp.where(jax.random.bernoulli(key, jnp.float32(1 - rate), X.shape), X / (1 - rate), 0)


def held(value: Array, surrogate: Array) -> Array:
    """The value under the surrogate's derivative."""
    return surrogate + jax.lax.stop_gradient(value - surrogate)


def straight_through_round(X: Array) -> Array:
    """Half to even, of the half below and the parity of the whole number."""
    below = jnp.floor(X)
    up = (X - below > 0.5) | ((X - below == 0.5) & (below % 2 == 1))
    return held(below + up, X)


def straight_through_sign(X: Array, window: float = 1.0) -> Array:
    """±1 in front of a window of slope 1."""
    return held(jnp.where(X < 0, -1, 1).astype(X.dtype), X * (jnp.abs(X) <= window))


def gumbel_softmax(Z: Array, key: Array | None, temperature: float = 1.0, hard: bool = False) -> Array:
    """Exponentials of the noisy logits over their sum."""
    noise = 0 if key is None else jax.random.gumbel(key, Z.shape, jnp.float32)
    S = Z.astype(jnp.promote_types(Z.dtype, jnp.float32)) + noise
    E = jnp.exp((S - jax.lax.stop_gradient(jnp.max(S, -1, keepdims=True))) / temperature)
    P = E / jnp.sum(E, -1, keepdims=True)
    one_hot = jax.nn.one_hot(jnp.argmax(S, -1), Z.shape[-1], dtype=P.dtype)
    return (held(one_hot, P) if hard else P).astype(Z.dtype)


def gated_by(gate: Function) -> Function:
    """The gated unit of a gate of jax.nn."""

    def unit(U: Array, V: Array, **options: Any) -> Array:
        return gate(U, **options) * V

    return unit


jax_gelu = partial(jax.nn.gelu, approximate=False)


def elementwise(rule: rules.Rule, reference: Function, peer: Function | None = None, **options: Any) -> list[Case]:
    """The rows of an activation that acts on each element alone; `handgrad check` runs one of them with options."""
    return [
        Case(rule, "rows", normal((5, 7), scale=2.0), reference, options, peer),
        *([] if options else [Case(rule, "tokens", normal((3, 2, 4)), reference, peer=peer)]),
        edge(rule, "zero", fixed([[0.0, -0.0], [1.0, -1.0]]), reference, options),
        edge(rule, "1e4", fixed([[1e4, -1e4, 30.0, -30.0, 0.5]]), reference, options),
    ]


def keeping(rule: rules.Rule, reference: Function, residuals: str, draw: Draw | None = None, **options: Any) -> Case:
    """The row of another choice of residuals."""
    return edge(rule, residuals, draw or normal((3, 4), scale=2.0), reference, {**options, "residuals": residuals})


def gated(rule: rules.Rule, reference: Function, gate: Callable[..., Array], **options: Any) -> list[Case]:
    """Rows with the gate recomputed, tokens with the slopes saved, and gates at 0 and wide open."""
    extreme, peer = fixed([[0.0, 1e4, -1e4, 30.0]], [[1.5, -2.0, 3.0, -0.5]]), gated_by(gate)
    saved = {**options, "residuals": "save"}
    return [
        Case(rule, "rows", normal((5, 7), (5, 7)), reference, options, peer),
        Case(rule, "tokens", normal((3, 2, 4), (3, 2, 4)), reference, saved, peer, tests_only=bool(options)),
        edge(rule, "1e4", extreme, reference, options),
    ]


def along_rows(rule: rules.Rule, reference: Function, peer: Function) -> list[Case]:
    """The rows of an operation along the last axis."""
    return [
        Case(rule, "rows", normal((5, 7), scale=2.0), reference, peer=peer),
        Case(rule, "tokens", normal((3, 2, 4)), reference, peer=peer),
        edge(rule, "ties", fixed([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]]), reference),
        edge(rule, "1e4", fixed([[1e4, -1e4, 1e4 - 1.0], [-1e4, -1e4 + 2.0, 0.0]]), reference),
    ]


def kinked(rule: rules.Rule, reference: Function, peer: Function | None = None) -> list[Case]:
    """The rows of an activation in pieces that meet at 0 or at ±3."""
    return [
        Case(rule, "rows", normal((5, 7), scale=3.0), reference, peer=peer),
        edge(rule, "ties", fixed([[[0.0, -0.0, 3.0]], [[-3.0, 1.0, -1.0]]]), reference),
        edge(rule, "1e4", fixed([[1e4, -1e4, 30.0, -30.0, 0.5]]), reference),
    ]


def noisy(shape: Shape, make_key: Callable[[int], Any] = jax.random.key) -> Draw:
    """Normal numbers and a random key."""
    return lambda rng: (rng.standard_normal(shape), make_key(int(rng.integers(2**31))))


def with_words(rng: Rng) -> Arrays:
    """Rows, and the words of a key."""
    return rng.standard_normal((5, 7)), rng.integers(0, 2**32, 2, dtype=np.uint32)


ROUND, SIGN, GUMBEL = rules.straight_through_round, rules.straight_through_sign, rules.gumbel_softmax

CASES = [
    *elementwise(rules.identity, identity),
    *elementwise(rules.sigmoid, sigmoid, jax.nn.sigmoid),
    *elementwise(rules.tanh, jnp.tanh),
    *elementwise(rules.softplus, softplus, jax.nn.softplus),
    keeping(rules.sigmoid, sigmoid, "recompute"),
    keeping(rules.tanh, jnp.tanh, "recompute"),
    keeping(rules.softplus, softplus, "save"),
    *elementwise(rules.relu, relu, jax.nn.relu),
    *elementwise(rules.leaky_relu, leaky_relu, jax.nn.leaky_relu),
    *elementwise(rules.leaky_relu, leaky_relu, jax.nn.leaky_relu, negative_slope=0.3),
    edge(rules.leaky_relu, "underflow", fixed([[-1e-37, -1e-6, 1e-37, 1.0]]), leaky_relu),
    keeping(rules.relu, relu, "mask", fixed([[-2.0, -0.0, 0.0, 1e-37, 3.0]])),
    keeping(rules.leaky_relu, leaky_relu, "mask", fixed([[-2.0, -0.0, 0.0, -1e-37, 3.0]])),
    *elementwise(rules.elu, elu, jax.nn.elu),
    *elementwise(rules.elu, elu, jax.nn.elu, alpha=0.5),
    *elementwise(rules.selu, selu, jax.nn.selu),
    keeping(rules.elu, elu, "save", alpha=0.5),
    keeping(rules.selu, selu, "save"),
    Case(rules.prelu, "rows", normal((5, 7), (7,)), prelu),
    edge(rules.prelu, "one-slope", normal((3, 2, 4), (1,)), prelu),
    edge(rules.prelu, "zero", fixed([[0.0, -0.0], [1.0, -1.0]], [0.3, -0.7]), prelu),
    *kinked(rules.squared_relu, squared_relu),
    *kinked(rules.hard_sigmoid, hard_sigmoid, jax.nn.hard_sigmoid),
    *kinked(rules.hard_swish, hard_swish, jax.nn.hard_swish),
    keeping(rules.hard_swish, hard_swish, "save", fixed([[-4.0, -3.0, -1.5, 3.0, 4.0]])),
    *elementwise(rules.silu, silu, jax.nn.silu),
    *elementwise(rules.mish, mish, jax.nn.mish),
    *elementwise(rules.gelu, gelu, jax_gelu),
    *elementwise(rules.gelu, gelu, jax_gelu, approximate=True),
    keeping(rules.silu, silu, "recompute"),
    keeping(rules.mish, mish, "recompute"),
    keeping(rules.gelu, gelu, "recompute"),
    *gated(rules.glu, glu, jax.nn.sigmoid),
    *gated(rules.swiglu, swiglu, jax.nn.silu),
    *gated(rules.geglu, geglu, jax_gelu),
    *gated(rules.geglu, geglu, jax_gelu, approximate=True),
    *along_rows(rules.softmax, softmax, jax.nn.softmax),
    *along_rows(rules.log_softmax, log_softmax, jax.nn.log_softmax),
    *along_rows(rules.logsumexp, logsumexp, partial(jax.nn.logsumexp, axis=-1)),
    Case(rules.dropout, "rows", with_words, dropout, {"rate": 0.3}),
    Case(rules.dropout, "rows", with_words, dropout, {"rate": 0.1, "residuals": "recompute"}),
    edge(rules.dropout, "tokens", noisy((3, 2, 4)), dropout, {"rate": 0.9}),
    edge(rules.dropout, "no-key", lambda rng: (rng.standard_normal((2, 3)), None), dropout, {"rate": 0.5}),
    edge(rules.dropout, "nothing-dropped", noisy((2, 3)), dropout, {"rate": 0.0}),
    Case(ROUND, "rows", normal((5, 7), scale=2.0), straight_through_round, estimator=True),
    edge(ROUND, "halves", fixed([[0.5, 1.5, -0.5, -1.5, 2.5, 0.0, 3.0]]), straight_through_round, estimator=True),
    Case(SIGN, "rows", normal((5, 7), scale=2.0), straight_through_sign, estimator=True),
    edge(SIGN, "ends", fixed([[0.0, 0.5, -0.5, 0.75, -2.0]]), straight_through_sign, {"window": 0.5}, estimator=True),
    Case(GUMBEL, "rows", with_words, gumbel_softmax, {"temperature": 0.7}),
    edge(GUMBEL, "tokens", noisy((3, 2, 4)), gumbel_softmax, {"hard": True}, estimator=True),
    edge(GUMBEL, "no-key", lambda rng: (rng.standard_normal((2, 3)), None), gumbel_softmax),
]
