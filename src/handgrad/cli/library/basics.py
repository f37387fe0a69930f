"""Linear, the activations, and the losses that every network starts from."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from handgrad.cli.library.entry import (
    Entry,
    beside,
    distributions,
    inside,
    integers,
    labels,
    normal,
    numbers,
    per_example,
    probabilities,
)


def linear(X: Any, W: Any, b: Any = None) -> Any:
    """X W + b."""
    Y = jnp.einsum("...i,io->...o", X, W)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def softmax_cross_entropy(Z: Any, Y: Any, label_smoothing: float = 0.0) -> Any:
    """optax's, for labels and for distributions."""
    if jnp.issubdtype(Y.dtype, jnp.integer):
        Y = jax.nn.one_hot(Y, Z.shape[-1], dtype=Z.dtype)
    return per_example(optax.losses.softmax_cross_entropy(Z, optax.losses.smooth_labels(Y, label_smoothing)))


def binary_cross_entropy(A: Any, Y: Any) -> Any:
    """From probabilities."""
    return -per_example(Y * jnp.log(A) + (1 - Y) * jnp.log1p(-A))


def huber_loss(A: Any, Y: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.huber_loss(A, Y))


def sigmoid_cross_entropy(Z: Any, Y: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.sigmoid_binary_cross_entropy(Z, Y))


ROWS, TOKENS = (5, 7), (3, 2, 4)


def of_one(op: str, reference: Callable[..., Any], **options: Any) -> list[Entry]:
    """A rule of one array: rows, and tokens."""
    return [
        Entry(op, "rows", normal(ROWS), reference, options),
        Entry(op, "tokens", normal(TOKENS), reference, options),
    ]


def of_two(op: str, reference: Callable[..., Any], **options: Any) -> list[Entry]:
    """A regression's loss."""

    def total(A: Any, Y: Any, **options: Any) -> Any:
        return per_example(reference(A, Y, **options))

    return [
        Entry(op, "rows", beside(ROWS, numbers), total, options),
        Entry(op, "tokens", beside(TOKENS, numbers), total, options),
    ]


BASICS = [
    Entry("linear", "rows", normal((5, 7), (7, 3), (3,)), linear),
    Entry("linear", "tokens", normal((3, 4, 2), (2, 5), (5,)), linear),
    Entry("linear", "no bias", normal((5, 7), (7, 3)), linear),
    *of_one("identity", lambda X: X * 1),
    *of_one("sigmoid", jax.nn.sigmoid),
    *of_one("tanh", jnp.tanh),
    *of_one("softplus", jax.nn.softplus),
    *of_one("relu", jax.nn.relu),
    *of_one("leaky_relu", jax.nn.leaky_relu),
    *of_one("elu", jax.nn.elu),
    Entry("elu", "rows", normal(ROWS), jax.nn.elu, {"alpha": 0.5}),
    *of_one("selu", jax.nn.selu),
    *of_one("silu", jax.nn.silu),
    *of_one("mish", jax.nn.mish),
    *of_one("gelu", partial(jax.nn.gelu, approximate=False)),
    Entry("gelu", "rows", normal(ROWS), jax.nn.gelu, {"approximate": True}),
    *of_one("softmax", jax.nn.softmax),
    *of_one("log_softmax", jax.nn.log_softmax),
    *of_one("logsumexp", partial(jax.nn.logsumexp, axis=-1)),
    *of_two("squared_error", optax.losses.squared_error),
    *of_two("l2_loss", optax.losses.l2_loss),
    *of_two("absolute_error", lambda A, Y: jnp.abs(A - Y)),
    *of_two("huber_loss", optax.losses.huber_loss),
    Entry("huber_loss", "integers", beside(ROWS, integers), huber_loss),
    Entry("sigmoid_cross_entropy", "rows", beside(ROWS, probabilities), sigmoid_cross_entropy),
    Entry("sigmoid_cross_entropy", "tokens of integers", beside(TOKENS, integers), sigmoid_cross_entropy),
    Entry("softmax_cross_entropy", "labels", beside(ROWS, labels), softmax_cross_entropy),
    Entry("softmax_cross_entropy", "distributions", beside(ROWS, distributions), softmax_cross_entropy),
    Entry("softmax_cross_entropy", "tokens", beside(TOKENS, labels), softmax_cross_entropy, {"label_smoothing": 0.1}),
    Entry("binary_cross_entropy", "rows", inside(ROWS, probabilities), binary_cross_entropy),
    Entry("binary_cross_entropy", "tokens of integers", inside(TOKENS, integers), binary_cross_entropy),
]
