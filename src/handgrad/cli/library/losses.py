"""The losses beyond those every network starts from, beside optax's and a few lines of jax.numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from handgrad.cli.library.basics import ROWS, TOKENS, linear
from handgrad.cli.library.entry import (
    Arrays,
    Entry,
    beside,
    distributions,
    integers,
    labels,
    normal,
    numbers,
    per_example,
    probabilities,
)

IGNORE = -1


def token_losses(Z: Any, Y: Any, class_weights: Any, **options: Any) -> Any:
    """optax's, token by token, with what language models add."""
    if options.get("softcap"):
        Z = options["softcap"] * jnp.tanh(Z / options["softcap"])
    Q = jax.nn.one_hot(Y, Z.shape[-1], dtype=Z.dtype)
    Q = optax.losses.smooth_labels(Q, options.get("label_smoothing", 0)) * jnp.broadcast_to(class_weights, Z.shape)
    C = optax.losses.softmax_cross_entropy(Z, Q)
    C = C + options.get("z_loss", 0) * jnp.square(jax.nn.logsumexp(Z, axis=-1))
    return per_example(jnp.where(options.get("ignore_index") == Y, 0, C))


def linear_cross_entropy(X: Any, W: Any, b: Any, Y: Any, chunk: int, **options: Any) -> Any:
    """The same of logits written out."""
    Z = linear(X, W, b)
    return token_losses(Z, Y, jnp.ones_like(Z[0, 0]), **options)


def focal_loss(Z: Any, Y: Any, **options: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.sigmoid_focal_loss(Z, Y, **options))


def hinge_loss(A: Any, Y: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.hinge_loss(A, Y))


def kl_divergence(L: Any, Y: Any, log_target: bool = False) -> Any:
    """optax's two."""
    if log_target:
        return per_example(optax.losses.kl_divergence_with_log_targets(L, Y))
    return per_example(optax.losses.kl_divergence(L, Y))


def poisson_loss(A: Any, Y: Any, log_input: bool = True) -> Any:
    """Without what depends on the target alone."""
    return per_example(jnp.exp(A) - Y * A if log_input else A - Y * jnp.log(A + 1e-8))


def cosine_distance(A: Any, Y: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.cosine_distance(A, Y))


def info_nce(A: Any, Y: Any, temperature: float, normalize: bool = True) -> Any:
    """The cross-entropy of all similarities, each query's own key being its label."""
    if normalize:
        A, Y = (side / jnp.linalg.norm(side, axis=1, keepdims=True) for side in (A, Y))
    return optax.losses.softmax_cross_entropy_with_integer_labels(A @ Y.T / temperature, jnp.arange(len(A)))


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """−1 and 1, integers."""
    return rng.choice([-1, 1], shape)


def counts(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Numbers of events."""
    return rng.poisson(2, shape)


def logs(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Log-probabilities."""
    return np.log(distributions(rng, shape))


def some_ignored(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Labels, the first of them to be ignored."""
    Y = labels(rng, shape)
    Y.flat[0] = IGNORE
    return Y


def weighted_classes(rng: np.random.Generator) -> Arrays:
    """Logits of tokens, labels, and a weight for each class."""
    return rng.standard_normal(TOKENS), some_ignored(rng, TOKENS), rng.uniform(0.5, 2, TOKENS[-1])


def head(rng: np.random.Generator) -> Arrays:
    """X, W, b and labels."""
    return *(rng.standard_normal(shape) for shape in ((3, 2, 4), (4, 5), (5,))), some_ignored(rng, (3, 2, 5))


def log_predictions(rng: np.random.Generator) -> Arrays:
    """Log-probabilities, a first row that isn't normalized (all logarithms of others are negative), and a target."""
    L = logs(rng, ROWS)
    L[0] = -L[0]
    return L, distributions(rng, ROWS)


ALL = {"label_smoothing": 0.1, "ignore_index": IGNORE, "z_loss": 0.1, "softcap": 3.0}

LOSSES = [
    Entry("softmax_cross_entropy", "weighted", weighted_classes, token_losses, {"ignore_index": IGNORE}),
    Entry("softmax_cross_entropy", "weighted", weighted_classes, token_losses, ALL),
    Entry("linear_cross_entropy", "tokens", head, linear_cross_entropy, {"chunk": 4, "ignore_index": IGNORE}),
    Entry("linear_cross_entropy", "tokens", head, linear_cross_entropy, {"chunk": 4, **ALL}),
    Entry("focal_loss", "rows", beside(ROWS, probabilities), focal_loss),
    Entry(
        "focal_loss",
        "integers",
        beside(TOKENS, integers),
        focal_loss,
        {"gamma": 1.5, "alpha": 0.25},
    ),
    Entry("hinge_loss", "rows", beside(ROWS, signs), hinge_loss),
    Entry("hinge_loss", "rows of numbers", beside(ROWS, numbers), hinge_loss),
    Entry("kl_divergence", "rows", log_predictions, kl_divergence),
    Entry("kl_divergence", "unnormalized rows", beside(ROWS, logs), kl_divergence, {"log_target": True}),
    Entry("poisson_loss", "rows", beside(ROWS, counts), poisson_loss),
    Entry("poisson_loss", "tokens of numbers", beside(TOKENS, lambda rng, shape: rng.gamma(2, 1, shape)), poisson_loss),
    Entry("cosine_distance", "rows", normal(ROWS, ROWS), cosine_distance),
    Entry("cosine_distance", "tokens", normal(TOKENS, TOKENS), cosine_distance),
    Entry("info_nce", "rows", normal((5, 4), (5, 4)), info_nce, {"temperature": 0.5}),
    Entry("info_nce", "rows", normal((5, 4), (5, 4)), info_nce, {"temperature": 2.0, "normalize": False}),
]
