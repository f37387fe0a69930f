"""Rows of cases/losses.py: log-probabilities of tokens, preferences and policies, from their formulas as papers write
them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.activations import log_softmax
from handgrad.cases.case import Arrays, Case, Draw, Rng, Shape, edge, fixed, normal, per_example
from handgrad.cases.linear import linear

IGNORE = -100


def linear_log_probability(
    X: Array,
    W: Array,
    b: Array | None,
    Y: Array,
    chunk: int | None = None,
    ignore_index: int | None = None,
    softcap: float | None = None,
    transposed: bool = False,
) -> Array:
    """The logits written out, and all of log softmax."""
    W = jnp.swapaxes(W, 0, 1) if transposed else W
    Z = linear(X, W, b)
    L = log_softmax(Z if softcap is None else softcap * jnp.tanh(Z / softcap))
    chosen = jnp.sum(L * jax.nn.one_hot(Y, W.shape[1], dtype=L.dtype), -1)  # of a label outside, zeros
    return chosen if ignore_index is None else jnp.where(ignore_index == Y, 0, chosen)


def answers(L: Array) -> tuple[Array, Array]:
    """The chosen answer's log-probability and the rejected one's."""
    return per_example(L[:, 0]), per_example(L[:, 1])


def log_ratios(L: Array, R: Array) -> Array:
    """log (π(chosen) / π(rejected)) − log (π_ref(chosen) / π_ref(rejected))."""
    (chosen, rejected), (reference_chosen, reference_rejected) = answers(L), answers(R)
    return (chosen - rejected) - (reference_chosen - reference_rejected)


def dpo_loss(L: Array, R: Array, beta: float = 0.1, label_smoothing: float = 0.0) -> Array:
    """By log σ on both sides."""
    logit = beta * log_ratios(L, R)
    right, wrong = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def ipo_loss(L: Array, R: Array, beta: float = 0.1) -> Array:
    """The square."""
    return (log_ratios(L, R) - 0.5 / beta) ** 2


def of_actions(C: Array, mask: Array | None, reduction: str) -> Array:
    """Each sequence's mean or sum over what counts; each example's mean or sum over its sequences."""
    m = jnp.ones(C.shape, C.dtype) if mask is None else mask.astype(C.dtype)
    C = jnp.where(m == 1, C, 0)
    if reduction == "sum" or C.ndim == 1:
        return per_example(C)
    of_sequences = jnp.sum(C, -1) / jnp.maximum(jnp.sum(m, -1), 1)
    return jnp.mean(of_sequences.reshape(len(C), -1), 1)


def clipped(L: Array, L_old: Array, A: Array, clip: float, clip_high: float | None) -> Array:
    """The smaller of two products; one of them at a tie."""
    A = jnp.broadcast_to(A.reshape(*A.shape, *[1] * (L.ndim - A.ndim)), L.shape)
    d, high = L - L_old, clip if clip_high is None else clip_high
    free, held = jnp.exp(d) * A, jnp.exp(jnp.clip(d, math.log1p(-clip), math.log1p(high))) * A
    return jnp.where(held < free, held, free)


def ppo_loss(
    L: Array,
    L_old: Array,
    A: Array,
    mask: Array | None = None,
    clip: float = 0.2,
    clip_high: float | None = None,
    reduction: str = "mean",
) -> Array:
    """min(ρ A, clip(ρ) A)."""
    return of_actions(-clipped(L, L_old, A, clip, clip_high), mask, reduction)


def grpo_loss(
    L: Array,
    L_old: Array,
    L_reference: Array,
    A: Array,
    mask: Array | None = None,
    beta: float = 0.04,
    clip: float = 0.2,
    clip_high: float | None = None,
    reduction: str = "mean",
) -> Array:
    """π_ref / π − 1 − log (π_ref / π) beside it."""
    divergence = jnp.expm1(L_reference - L) - (L_reference - L)
    return of_actions(beta * divergence - clipped(L, L_old, A, clip, clip_high), mask, reduction)


def reinforce_loss(
    L: Array, R: Array, B: Array | None = None, mask: Array | None = None, reduction: str = "sum"
) -> Array:
    """Log-probabilities times numbers."""
    A = jax.lax.stop_gradient(R if B is None else R - B)
    A = jnp.broadcast_to(A.reshape(*A.shape, *[1] * (L.ndim - A.ndim)), L.shape)
    return of_actions(-A * L, mask, reduction)


def ppo_value_loss(
    V: Array, V_old: Array, R: Array, mask: Array | None = None, clip: float = 0.2, reduction: str = "mean"
) -> Array:
    """The larger of two squares."""
    R = jnp.broadcast_to(R.reshape(*R.shape, *[1] * (V.ndim - R.ndim)), V.shape)
    held = V_old + jnp.clip(V - V_old, -clip, clip)
    return of_actions(jnp.maximum((V - R) ** 2, (held - R) ** 2) / 2, mask, reduction)


def group_advantages(R: Array, scale: bool = True, epsilon: float = 1e-4) -> Array:
    """By the variance of all pairs' differences, (r_i − r_j)² / 2; no square root of 0."""
    n = R.shape[1]
    mean = jnp.sum(R, 1, keepdims=True) / n
    squares = jnp.sum((R[:, :, None] - R[:, None, :]) ** 2, (1, 2))[:, None] / (2 * n * (n - 1))
    deviation = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return (R - mean) / (deviation + epsilon) if scale else R - mean


def chosen(*batch: int, bias: bool = True, transposed: bool = False) -> Draw:
    """X, W, b and labels of five classes, the first to be ignored."""

    def draw(rng: Rng) -> Arrays:
        X, W, b = normal((*batch, 3), (5, 3) if transposed else (3, 5), (5,))(rng)
        Y = rng.integers(0, 5, batch)
        Y.flat[0] = IGNORE
        return X, W, b if bias else None, Y

    return draw


def acted(shape: Shape, advantages: int, masked: bool = False, reference: bool = False) -> Draw:
    """Log-probabilities, which differ by about 0.3, advantages with so many axes, a mask under which the last sequence
    is empty."""

    def draw(rng: Rng) -> Arrays:
        L = -rng.gamma(2, 0.5, shape)
        others = [L + 0.3 * rng.standard_normal(shape) for _ in range(1 + reference)]
        mask = rng.uniform(size=shape) < 0.7
        mask.reshape(-1, shape[-1])[-1] = False
        return L, *others, rng.standard_normal(shape[:advantages]), *([mask] if masked else [])

    return draw


def rewarded(shape: Shape, rewards: int) -> Draw:
    """Log-probabilities, returns and a baseline with so many axes, and a mask."""

    def draw(rng: Rng) -> Arrays:
        returns = normal(shape[:rewards], shape[:rewards])(rng)
        return -rng.gamma(2, 0.5, shape), *returns, rng.uniform(size=shape) < 0.7

    return draw


LOG, DPO, IPO = rules.linear_log_probability, rules.dpo_loss, rules.ipo_loss
PPO, GRPO, GROUPS = rules.ppo_loss, rules.grpo_loss, rules.group_advantages
SCORE, VALUE = rules.reinforce_loss, rules.ppo_value_loss
SUM = {"clip": 0.1, "clip_high": 0.3, "reduction": "sum"}
# Ratios at both bounds, inside and beyond, under advantages of both signs and 0.
BOUNDS = np.log([[1.5, 1.5, 0.5, 0.5, 1.2, 1.6, 0.4, 1.6]])
SIGNS = np.array([[1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 0.0]])

PREFERENCES = [
    Case(LOG, "tokens", chosen(3, 4), linear_log_probability, {"chunk": 5, "ignore_index": IGNORE}),
    edge(LOG, "pairs", chosen(3, 2, 2), linear_log_probability, {"chunk": 4, "ignore_index": IGNORE, "softcap": 3.0}),
    edge(LOG, "rows-no-bias", chosen(5, bias=False), linear_log_probability, {"ignore_index": IGNORE}),
    edge(
        LOG,
        "table",
        chosen(3, 2, bias=False, transposed=True),
        linear_log_probability,
        {"chunk": 4, "ignore_index": IGNORE, "transposed": True},
    ),
    Case(DPO, "pairs", normal((5, 2), (5, 2), scale=3.0), dpo_loss),
    edge(DPO, "tokens", normal((4, 2, 3), (4, 2, 3)), dpo_loss, {"beta": 0.5, "label_smoothing": 0.1}),
    Case(IPO, "pairs", normal((5, 2), (5, 2)), ipo_loss),
    edge(IPO, "tokens", normal((4, 2, 3), (4, 2, 3)), ipo_loss, {"beta": 0.5}),
    Case(PPO, "tokens", acted((4, 6), 2, masked=True), ppo_loss),
    edge(PPO, "groups", acted((3, 2, 4), 2), ppo_loss, SUM),
    edge(PPO, "actions", acted((7,), 1), ppo_loss),
    edge(PPO, "bounds", fixed(BOUNDS, 0 * BOUNDS, SIGNS), ppo_loss, {"clip": 0.5}),
    Case(GRPO, "groups", acted((4, 3, 5), 2, masked=True, reference=True), grpo_loss),
    edge(GRPO, "tokens", acted((3, 6), 1, reference=True), grpo_loss, {**SUM, "beta": 0.5}),
    Case(SCORE, "tokens", rewarded((4, 5), 1), reinforce_loss, estimator=True),
    edge(SCORE, "sequences", rewarded((3, 2, 4), 2), reinforce_loss, {"reduction": "mean"}, estimator=True),
    edge(SCORE, "actions", normal((5,), (5,)), reinforce_loss, estimator=True),
    Case(VALUE, "tokens", acted((4, 6), 2, masked=True), ppo_value_loss),
    edge(VALUE, "groups", acted((3, 2, 4), 1), ppo_value_loss, {"clip": 0.5, "reduction": "sum"}),
    Case(GROUPS, "rewards", normal((4, 5)), group_advantages),
    edge(GROUPS, "equal", fixed([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]), group_advantages, {"epsilon": 0.1}),
    edge(GROUPS, "rewards", normal((3, 4)), group_advantages, {"scale": False}),
]
