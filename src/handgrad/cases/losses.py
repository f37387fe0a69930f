"""Losses: regression, binary classification, classes, divergences, margins, similarity, CTC, lattices, preferences."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from handgrad import rules
from handgrad.cases._distances import DISTANCES
from handgrad.cases._lattices import CRF, SINKHORN, TRANSDUCER
from handgrad.cases._losses import (
    absolute_error,
    binary_cross_entropy,
    cosine_distance,
    ctc_loss,
    focal_loss,
    hinge_loss,
    huber_loss,
    info_nce,
    kl_divergence,
    l2_loss,
    linear_cross_entropy,
    optax_info_nce,
    optax_kl_divergence,
    optax_linear,
    optax_loss,
    optax_softmax,
    poisson_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)
from handgrad.cases._preferences import PREFERENCES
from handgrad.cases.case import Arrays, Case, Draw, Function, Rng, Shape, edge, fixed, normal, with_target

IGNORE = -100


def numbers(rng: Rng, shape: Shape) -> Any:
    """Targets of a regression."""
    return rng.standard_normal(shape)


def probabilities(rng: Rng, shape: Shape) -> Any:
    """Targets of a binary classification, away from 0 and 1."""
    return rng.uniform(0.05, 0.95, shape)


def integers(rng: Rng, shape: Shape) -> Any:
    """0 and 1."""
    return rng.integers(0, 2, shape)


def signs(rng: Rng, shape: Shape) -> Any:
    """−1 and 1, integers."""
    return rng.choice([-1, 1], shape)


def labels(rng: Rng, shape: Shape) -> Any:
    """A label for each row of logits."""
    return rng.integers(0, shape[-1], shape[:-1])


def some_ignored(rng: Rng, shape: Shape) -> Any:
    """Labels of which about a third are IGNORE, the first surely, the second surely not."""
    Y = np.where(rng.uniform(size=shape[:-1]) < 1 / 3, IGNORE, labels(rng, shape))
    Y.flat[:2] = IGNORE, 0
    return Y


def distributions(rng: Rng, shape: Shape) -> Any:
    """A distribution for each row of logits."""
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def sparse(rng: Rng, shape: Shape) -> Any:
    """Distributions with a zero in each row."""
    Q = distributions(rng, shape)
    Q[..., 0] = 0
    return Q / Q.sum(-1, keepdims=True)


def logs(rng: Rng, shape: Shape) -> Any:
    """Log-probabilities."""
    return np.log(distributions(rng, shape))


def counts(rng: Rng, shape: Shape) -> Any:
    """Numbers of events."""
    return rng.poisson(2, shape)


def drawn(shape: Shape, prediction: Callable[[Rng, Shape], Any], target: Callable[[Rng, Shape], Any]) -> Draw:
    """Predictions and targets drawn by functions of (rng, shape)."""
    return lambda rng: (prediction(rng, shape), target(rng, shape))


def weighted(draw: Draw, n: int) -> Draw:
    """The same draw, and a weight for each class."""
    return lambda rng: (*draw(rng), rng.uniform(0.2, 2, n))


def projected(*batch: int, bias: bool = True, transposed: bool = False) -> Draw:
    """X, W, b and labels of five classes, some of them to be ignored."""

    def draw(rng: Rng) -> Arrays:
        X, W, b = normal((*batch, 3), (5, 3) if transposed else (3, 5), (5,))(rng)
        return X, W, b if bias else None, some_ignored(rng, (*batch, 5))

    return draw


def unnormalized(rng: Rng, shape: Shape) -> Any:
    """Log-probabilities, the first row negated: logarithms of distributions have one sign."""
    L = logs(rng, shape)
    L[0] = -L[0]
    return L


def short(rng: Rng) -> Arrays:
    """A vector of zeros on either side and one shorter than ε = 0.1."""
    A, Y = rng.standard_normal((2, 4, 3))
    A[0], A[1], Y[2] = 0, 0.01 * A[1], 0
    return A, Y


def sequences(labels: Any, input_lengths: Any, label_lengths: Any, time: int, classes: int, scale: float = 1.0) -> Draw:
    """Normal logits, and these labels and lengths."""
    return lambda rng: (
        scale * rng.standard_normal((len(labels), time, classes)),
        np.array(labels, int).reshape(len(labels), -1),
        np.array(input_lengths),
        np.array(label_lengths),
    )


def regression(rule: rules.Rule, reference: Function, peer: Function, **options: Any) -> list[Case]:
    """Rows, tokens and scalars, integer targets, and predictions that meet their targets."""
    peer = optax_loss(peer)
    rows = Case(rule, "rows", with_target((5, 7), numbers), reference, options, peer, tests_only=bool(options))
    met = edge(rule, "met", fixed([[1.0, 2.0]], [[1.0, 3.0]]), reference, options)
    if options:
        return [rows, met]
    return [
        rows,
        Case(rule, "tokens", with_target((3, 2, 4), numbers), reference, peer=peer),
        edge(rule, "scalars", with_target((4,), numbers), reference),
        edge(rule, "integers", with_target((4, 3), integers), reference),
        met,
    ]


optax_sigmoid = optax_loss(optax.losses.sigmoid_binary_cross_entropy)
optax_hinge = optax_loss(optax.losses.hinge_loss)
optax_focal = optax_loss(optax.losses.sigmoid_focal_loss)
optax_cosine = optax_loss(optax.losses.cosine_distance)

ROWS, TOKENS = (5, 7), (3, 2, 4)
CLASSES, FOCAL, KL = rules.softmax_cross_entropy, rules.focal_loss, rules.kl_divergence
ALL = {"label_smoothing": 0.1, "ignore_index": IGNORE, "z_loss": 0.1}
PRODUCTS = {"temperature": 2.0, "normalize": False, "residuals": "recompute"}
CTC_LENGTHS = sequences([[1, 2, 3], [2, 2, 0], [3, 0, 0], [0, 0, 0]], [6, 5, 4, 3], [3, 2, 1, 0], 6, 4)

CASES = [
    *regression(rules.squared_error, squared_error, optax.losses.squared_error),
    *regression(rules.l2_loss, l2_loss, optax.losses.l2_loss),
    *regression(rules.absolute_error, absolute_error, lambda A, Y: jnp.abs(A - Y)),
    *regression(rules.huber_loss, huber_loss, optax.losses.huber_loss),
    *regression(rules.huber_loss, huber_loss, optax.losses.huber_loss, delta=0.25),
    Case(
        rules.sigmoid_cross_entropy,
        "rows",
        with_target(ROWS, probabilities, 2.0),
        sigmoid_cross_entropy,
        peer=optax_sigmoid,
    ),
    Case(
        rules.sigmoid_cross_entropy,
        "integers",
        with_target(TOKENS, integers),
        sigmoid_cross_entropy,
        peer=optax_sigmoid,
    ),
    edge(rules.sigmoid_cross_entropy, "1e4", fixed([[1e4, 1e4, -1e4]], [[1.0, 0.5, 0.0]]), sigmoid_cross_entropy),
    Case(rules.binary_cross_entropy, "rows", drawn(ROWS, probabilities, probabilities), binary_cross_entropy),
    Case(rules.binary_cross_entropy, "integers", drawn(TOKENS, probabilities, integers), binary_cross_entropy),
    edge(rules.binary_cross_entropy, "tiny", fixed([[1e-30, 1e-3, 0.5]], [[0.0, 1.0, 0.5]]), binary_cross_entropy),
    Case(CLASSES, "labels", with_target(ROWS, labels, 2.0), softmax_cross_entropy, peer=optax_softmax),
    Case(CLASSES, "distributions", with_target(ROWS, distributions), softmax_cross_entropy, peer=optax_softmax),
    Case(
        CLASSES, "tokens", with_target(TOKENS, labels), softmax_cross_entropy, {"label_smoothing": 0.1}, optax_softmax
    ),
    edge(CLASSES, "unnormalized", with_target(ROWS, probabilities), softmax_cross_entropy),
    edge(CLASSES, "distributions", with_target(TOKENS, distributions), softmax_cross_entropy, {"label_smoothing": 0.3}),
    edge(CLASSES, "1e4", fixed([[1e4, -1e4, 0.0], [1e4, 0.0, 0.0]], [0, 2]), softmax_cross_entropy),
    Case(
        CLASSES,
        "weighted",
        weighted(with_target((4, 3, 5), some_ignored), 5),
        softmax_cross_entropy,
        {"ignore_index": IGNORE},
        optax_softmax,
    ),
    edge(
        CLASSES,
        "weighted-distributions",
        weighted(with_target((3, 5), distributions), 5),
        softmax_cross_entropy,
        {"label_smoothing": 0.2, "z_loss": 0.01},
    ),
    Case(
        CLASSES,
        "weighted",
        weighted(with_target((3, 4, 5), some_ignored, 3.0), 5),
        softmax_cross_entropy,
        {**ALL, "softcap": 4.0},
        optax_softmax,
    ),
    Case(
        rules.linear_cross_entropy,
        "tokens",
        projected(3, 4),
        linear_cross_entropy,
        {"chunk": 4, "ignore_index": IGNORE},
        optax_linear,
    ),
    Case(
        rules.linear_cross_entropy,
        "space",
        projected(2, 2, 3),
        linear_cross_entropy,
        {"chunk": 5, "softcap": 3.0, **ALL},
        optax_linear,
    ),
    edge(
        rules.linear_cross_entropy,
        "rows-no-bias",
        projected(5, bias=False),
        linear_cross_entropy,
        {"chunk": 2, "ignore_index": IGNORE},
    ),
    edge(
        rules.linear_cross_entropy,
        "transposed",
        projected(3, 2, transposed=True),
        linear_cross_entropy,
        {"chunk": 4, "ignore_index": IGNORE, "transposed": True},
    ),
    Case(KL, "rows", drawn(ROWS, unnormalized, distributions), kl_divergence, peer=optax_kl_divergence),
    Case(KL, "log", with_target(ROWS, logs), kl_divergence, {"log_target": True}, optax_kl_divergence),
    edge(KL, "zeros", drawn(TOKENS, logs, sparse), kl_divergence),
    edge(
        KL, "integers", drawn((3, 4), logs, lambda rng, shape: np.eye(4, dtype=int)[labels(rng, shape)]), kl_divergence
    ),
    Case(rules.poisson_loss, "rows", with_target(ROWS, counts), poisson_loss),
    Case(rules.poisson_loss, "numbers", with_target(TOKENS, lambda rng, shape: rng.gamma(2, 1, shape)), poisson_loss),
    edge(rules.poisson_loss, "tokens", with_target(TOKENS, counts), poisson_loss, {"full": True}),
    edge(
        rules.poisson_loss,
        "rates",
        drawn(
            (3, 4), lambda rng, shape: rng.uniform(0.1, 4, shape), lambda rng, shape: counts(rng, shape).astype(float)
        ),
        poisson_loss,
        {"log_input": False, "full": True},
    ),
    Case(rules.hinge_loss, "rows", with_target(ROWS, signs), hinge_loss, peer=optax_hinge),
    Case(rules.hinge_loss, "numbers", with_target(ROWS, numbers), hinge_loss, peer=optax_hinge),
    edge(
        rules.hinge_loss, "tokens", with_target(TOKENS, lambda rng, shape: signs(rng, shape).astype(float)), hinge_loss
    ),
    edge(
        rules.hinge_loss,
        "ties",
        fixed([[1.0, -1.0, 0.5], [1.0, 2.0, -3.0]], [[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]),
        hinge_loss,
    ),
    Case(FOCAL, "rows", with_target(ROWS, probabilities), focal_loss, peer=optax_focal),
    Case(FOCAL, "integers", with_target(TOKENS, integers), focal_loss, {"gamma": 1.5, "alpha": 0.25}, optax_focal),
    edge(
        FOCAL,
        "sure",
        fixed([[30.0, -30.0, 5.0, -5.0]], [[1.0, 0.0, 0.0, 0.3]]),
        focal_loss,
        {"gamma": 0.5, "alpha": 0.7},
    ),
    Case(rules.cosine_distance, "rows", normal(ROWS, ROWS), cosine_distance, peer=optax_cosine),
    Case(rules.cosine_distance, "tokens", normal(TOKENS, TOKENS), cosine_distance, peer=optax_cosine),
    edge(
        rules.cosine_distance,
        "integers",
        with_target(TOKENS, lambda rng, shape: rng.integers(1, 4, shape)),
        cosine_distance,
    ),
    edge(rules.cosine_distance, "short", short, cosine_distance, {"epsilon": 0.1}),
    Case(rules.info_nce, "cosines", normal((5, 4), (5, 4)), info_nce, {"temperature": 0.5}, optax_info_nce),
    Case(rules.info_nce, "products", normal((3, 4), (3, 4)), info_nce, PRODUCTS, optax_info_nce),
    edge(rules.info_nce, "short", short, info_nce, {"temperature": 0.5, "epsilon": 0.1}),
    Case(rules.ctc_loss, "lengths", CTC_LENGTHS, ctc_loss),
    Case(
        rules.ctc_loss,
        "last-blank",
        sequences([[0, 0], [1, 0]], [5, 2], [2, 2], 5, 3, 3.0),
        ctc_loss,
        {"blank": 2, "residuals": "recompute"},
    ),
    edge(rules.ctc_loss, "no-frame", sequences([[], []], [1, 0], [0, 0], 1, 2), ctc_loss),
    *PREFERENCES,
    *TRANSDUCER,
    *CRF,
    *SINKHORN,
    *DISTANCES,
]
