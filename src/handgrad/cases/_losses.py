"""What cases/losses.py compares with: the losses from their definitions, and optax's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from handgrad.cases.activations import log_softmax, logsumexp
from handgrad.cases.case import Arrays, Function, per_example
from handgrad.cases.linear import linear

NEVER = -1e30  # log 0, near enough, and without the NaN that autodiff makes of −∞ − −∞


def squared_error(A: Array, Y: Array) -> Array:
    """(A − Y)²."""
    return per_example(jnp.square(A - Y))


def l2_loss(A: Array, Y: Array) -> Array:
    """(A − Y)² / 2."""
    return per_example(jnp.square(A - Y) / 2)


def absolute_error(A: Array, Y: Array) -> Array:
    """|A − Y|."""
    return per_example((A - Y) * jnp.sign(A - Y))


def huber_loss(A: Array, Y: Array, delta: float = 1.0) -> Array:
    """Quadratic up to δ, linear beyond."""
    size = jnp.abs(A - Y)
    return per_example(jnp.where(size <= delta, jnp.square(A - Y) / 2, delta * (size - delta / 2)))


def sigmoid_cross_entropy(Z: Array, Y: Array) -> Array:
    """From logits."""
    return per_example(jnp.logaddexp(Z, 0) - Z * Y)


def binary_cross_entropy(A: Array, Y: Array) -> Array:
    """From probabilities."""
    return per_example(-(Y * jnp.log(A) + (1 - Y) * jnp.log(1 - A)))


def softmax_cross_entropy(
    Z: Array,
    Y: Array,
    class_weights: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
) -> Array:
    """A distribution in each label's place, zeros where the label is to be ignored."""
    n = Z.shape[-1]
    S = Z if softcap is None else softcap * jnp.tanh(Z / softcap)
    counts = jnp.ones(Z.shape[:-1], Z.dtype)
    if jnp.issubdtype(Y.dtype, jnp.integer):
        if ignore_index is not None:
            counts = jnp.not_equal(Y, ignore_index).astype(Z.dtype)
        Y = jnp.eye(n, dtype=Z.dtype)[jnp.clip(Y, 0, n - 1)]
    Q = (1 - label_smoothing) * Y + label_smoothing / n
    if class_weights is not None:
        Q = Q * jnp.broadcast_to(class_weights, Q.shape)
    C = -jnp.sum(Q * log_softmax(S), -1) + z_loss * logsumexp(S) ** 2
    return per_example(counts * C)


def linear_cross_entropy(
    X: Array, W: Array, b: Array | None, Y: Array, chunk: int | None = None, transposed: bool = False, **options: Any
) -> Array:
    """The logits written out."""
    return softmax_cross_entropy(linear(X, jnp.swapaxes(W, 0, 1) if transposed else W, b), Y, **options)


def kl_divergence(L: Array, Y: Array, log_target: bool = False) -> Array:
    """Σ Y (log Y − L), 0 log 0 = 0."""
    if log_target:
        return per_example(jnp.exp(Y) * (Y - L))
    Y = Y.astype(jnp.result_type(L, Y))
    entropy = jnp.where(Y == 0, 0, Y * jnp.log(jnp.where(Y == 0, 1, Y)))
    return per_example(entropy - Y * L)


def poisson_loss(A: Array, Y: Array, log_input: bool = True, full: bool = False, epsilon: float = 1e-8) -> Array:
    """The rate's negative log-likelihood; in full, with Stirling's approximation of log Y!."""
    C = jnp.exp(A) - Y * A if log_input else A - Y * jnp.log(A + epsilon)
    if full:
        y = jnp.where(Y > 1, Y, 2.0).astype(C.dtype)
        C = C + jnp.where(Y > 1, y * jnp.log(y) - y + 0.5 * jnp.log(2 * np.pi * y), 0)
    return per_example(C)


def hinge_loss(A: Array, Y: Array) -> Array:
    """max(0, 1 − A Y)."""
    return per_example(jnp.maximum(0, 1 - A * Y))


def focal_loss(Z: Array, Y: Array, gamma: float = 2.0, alpha: float | None = None) -> Array:
    """The cross-entropy times the doubt to the power γ, by logarithms of either side."""
    yes, no = jax.nn.log_sigmoid(Z), jax.nn.log_sigmoid(-Z)
    C = -(Y * yes + (1 - Y) * no)
    doubt = Y * jnp.exp(no) + (1 - Y) * jnp.exp(yes)
    balance = 1 if alpha is None else alpha * Y + (1 - alpha) * (1 - Y)
    return per_example(balance * C * jnp.exp(gamma * jnp.log(doubt)))


def unit(A: Array, epsilon: float) -> Array:
    """A / max(‖A‖, ε), without the square root's slope at 0."""
    squares = jnp.sum(A * A, -1, keepdims=True)
    long = squares > epsilon**2
    return jnp.where(long, A / jnp.sqrt(jnp.where(long, squares, 1)), A / epsilon)


def cosine_distance(A: Array, Y: Array, epsilon: float = 1e-8) -> Array:
    """1 − cos of the angle."""
    Y = Y.astype(jnp.result_type(A, Y))
    return per_example(1 - jnp.einsum("...i,...i->...", unit(A, epsilon), unit(Y, epsilon)))


def info_nce(A: Array, Y: Array, temperature: float = 0.07, normalize: bool = True, epsilon: float = 1e-8) -> Array:
    """The cross-entropy of all similarities, each query's label being its own key."""
    if normalize:
        A, Y = unit(A, epsilon), unit(Y, epsilon)
    return -jnp.diag(log_softmax(jnp.einsum("in,jn->ij", A, Y) / temperature))


def ctc_loss(Z: Array, labels: Array, input_lengths: Array, label_lengths: Array, blank: int = 0) -> Array:
    """A chain of transition matrices between the 2 max_labels + 1 states, in logarithms, example by example."""

    def of_one(logits: Array, labels: Array, frames: Array, length: Array) -> Array:
        log_p = jax.nn.log_softmax(logits)
        states = jnp.full(2 * len(labels) + 1, blank).at[1::2].set(labels)
        place = jnp.arange(len(states))
        step = place[None, :] - place[:, None]  # from row to column
        differs = (states[None, :] != blank) & (states[None, :] != states[:, None])
        log_T = jnp.where((step == 0) | (step == 1) | ((step == 2) & differs), 0.0, NEVER).astype(log_p.dtype)

        def one_frame(log_alpha: Array, frame: Arrays) -> tuple[Array, None]:
            log_q, live = frame
            moved = jax.nn.logsumexp(log_alpha[:, None] + log_T, axis=0) + log_q[states]
            return jnp.where(live, moved, log_alpha), None

        log_alpha = jnp.where(place == 0, 0.0, NEVER).astype(log_p.dtype)
        log_alpha, _ = jax.lax.scan(one_frame, log_alpha, (log_p, jnp.arange(len(logits)) < frames))
        at_end = (place == 2 * length) | (place == 2 * length - 1)
        return -jax.nn.logsumexp(jnp.where(at_end, log_alpha, NEVER))

    wide = Z.astype(jnp.promote_types(Z.dtype, jnp.float32))
    return jax.vmap(of_one)(wide, labels, input_lengths, label_lengths).astype(Z.dtype)


def optax_loss(function: Function) -> Function:
    """optax's loss, summed for each example."""
    return lambda A, Y, **options: per_example(function(A, Y, **options))


def optax_softmax(Z: Array, Y: Array, class_weights: Array | None = None, **options: Any) -> Array:
    """optax's, with what language models add."""
    if softcap := options.get("softcap"):
        Z = softcap * jnp.tanh(Z / softcap)
    Q = jax.nn.one_hot(Y, Z.shape[-1], dtype=Z.dtype) if jnp.issubdtype(Y.dtype, jnp.integer) else Y
    Q = optax.losses.smooth_labels(Q, options.get("label_smoothing", 0))
    Q = Q if class_weights is None else Q * jnp.broadcast_to(class_weights, Q.shape)
    C = optax.losses.softmax_cross_entropy(Z, Q)
    C = C + options.get("z_loss", 0) * jnp.square(jax.nn.logsumexp(Z, axis=-1))
    return per_example(jnp.where(options["ignore_index"] == Y, 0, C) if "ignore_index" in options else C)


def optax_linear(X: Array, W: Array, b: Array, Y: Array, chunk: int, **options: Any) -> Array:
    """The same of logits written out."""
    return optax_softmax(linear(X, W, b), Y, **options)


def optax_info_nce(A: Array, Y: Array, temperature: float, normalize: bool = True) -> Array:
    """optax's cross-entropy of the similarities."""
    if normalize:
        A, Y = (side / jnp.linalg.norm(side, axis=1, keepdims=True) for side in (A, Y))
    return optax.losses.softmax_cross_entropy_with_integer_labels(A @ Y.T / temperature, jnp.arange(len(A)))


def optax_kl_divergence(L: Array, Y: Array, log_target: bool = False) -> Array:
    """optax's two."""
    losses = optax.losses
    return per_example((losses.kl_divergence_with_log_targets if log_target else losses.kl_divergence)(L, Y))
