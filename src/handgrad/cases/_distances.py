"""Rows of cases/losses.py: margins of several predictions, Gaussian likelihoods, overlaps, samples in order."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Arrays, Case, Draw, Rng, Shape, edge, fixed, normal, per_example


def half_at_0(C: Array) -> Array:
    """max(C, 0), half the slope at a tie."""
    return jnp.maximum(C, jnp.zeros_like(C))


def margin_ranking_loss(A: Array, B: Array, Y: Array, margin: float = 0.0) -> Array:
    """B's lead or A's, whichever Y charges."""
    return per_example(half_at_0(Y * B - Y * A + margin))


def distance(A: Array, B: Array) -> Array:
    """‖a − b‖ along the last axis, without the root's slope at 0."""
    squares = jnp.einsum("...i,...i->...", A - B, A - B)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def triplet_loss(A: Array, P: Array, N: Array, margin: float = 1.0) -> Array:
    """The distances' difference and a margin."""
    return per_example(half_at_0(distance(A, P) - distance(A, N) + margin))


def gaussian_nll(A: Array, V: Array, Y: Array, full: bool = False, epsilon: float = 1e-6) -> Array:
    """−log of the density, written out."""
    V = jnp.where(epsilon > V, epsilon, V)
    log_density = -jnp.square(Y - A) / (2 * V) - jnp.log(jnp.sqrt(V))
    return per_example(-(log_density - 0.5 * math.log(2 * math.pi) if full else log_density))


def dice_loss(A: Array, Y: Array, smooth: float = 1.0, squares: bool = False, per_class: bool = False) -> Array:
    """1 − twice the overlap over the sum of the sizes."""
    Y = Y.astype(A.dtype)
    A, Y = (X.reshape(len(X), -1, X.shape[-1] if per_class else 1) for X in (A, Y))
    size = jnp.sum(A**2, 1) + jnp.sum(Y**2, 1) if squares else jnp.sum(A, 1) + jnp.sum(Y, 1)
    return jnp.sum(1 - (2 * jnp.einsum("bic,bic->bc", A, Y) + smooth) / (size + smooth), 1)


def ranks(A: Array) -> Array:
    """How many elements of the last axis are below each, or equal and before it."""
    one, other = A[..., :, None], A[..., None, :]
    earlier = jnp.broadcast_to(jnp.tril(jnp.ones((A.shape[-1],) * 2, bool), -1), (*A.shape, A.shape[-1]))
    return jnp.sum((other < one) | (other == one) & earlier, -1)


def wasserstein_distance(A: Array, Y: Array, order: int = 1) -> Array:
    """Every pair of one rank, by permutation matrices."""
    Y = Y.astype(jnp.result_type(A, Y))
    of_A, of_Y = (jax.nn.one_hot(ranks(X), X.shape[-1], dtype=A.dtype, axis=-1) for X in (A, Y))
    E = jnp.einsum("...ir,...i->...r", of_A, A) - jnp.einsum("...ir,...i->...r", of_Y, Y)
    return per_example((E * jnp.sign(E) if order == 1 else E**2) / A.shape[-1])


def ranked(shape: Shape) -> Draw:
    """Scores, and −1 or 1."""
    return lambda rng: (*normal(shape, shape)(rng), rng.choice([-1, 1], shape))


def predicted(shape: Shape) -> Draw:
    """Means, variances and targets."""

    def draw(rng: Rng) -> Arrays:
        A, Y = normal(shape, shape)(rng)
        return A, rng.gamma(2, 0.5, shape), Y

    return draw


def masks(shape: Shape) -> Draw:
    """Logits' signs aside, numbers around 0 … 1, and 0 or 1."""
    return lambda rng: (rng.uniform(-0.2, 1, shape), rng.integers(0, 2, shape))


def soft_masks(shape: Shape) -> Draw:
    """Probabilities on both sides."""
    return lambda rng: (rng.uniform(0, 1, shape), rng.uniform(0, 1, shape))


RANKING, TRIPLET, NLL = rules.margin_ranking_loss, rules.triplet_loss, rules.gaussian_nll
DICE, WASSERSTEIN = rules.dice_loss, rules.wasserstein_distance

DISTANCES = [
    Case(RANKING, "scores", ranked((5, 4)), margin_ranking_loss, {"margin": 0.5}),
    edge(RANKING, "ties", fixed([[1.0, 0.0, 2.0]], [[1.0, 1.0, 3.0]], [[1.0, -1.0, -1.0]]), margin_ranking_loss),
    Case(TRIPLET, "rows", normal((5, 4), (5, 4), (5, 4)), triplet_loss),
    edge(TRIPLET, "tokens", normal((3, 2, 4), (3, 2, 4), (3, 2, 4)), triplet_loss, {"margin": 0.1}),
    edge(
        TRIPLET,
        "ties",
        fixed(
            [[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]],
            [[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]],
            [[4.0, 6.0], [4.0, 6.0], [6.0, 8.0]],
        ),
        triplet_loss,
        {"margin": 5.0},
    ),
    Case(NLL, "rows", predicted((5, 4)), gaussian_nll),
    edge(NLL, "held", predicted((3, 2, 4)), gaussian_nll, {"full": True, "epsilon": 0.7}),
    Case(DICE, "mask", masks((4, 6)), dice_loss),
    edge(DICE, "soft", soft_masks((3, 2, 4)), dice_loss, {"smooth": 0.1, "squares": True, "per_class": True}),
    Case(WASSERSTEIN, "samples", normal((4, 6), (4, 6)), wasserstein_distance),
    edge(WASSERSTEIN, "channels", normal((3, 2, 5), (3, 2, 5)), wasserstein_distance, {"order": 2}),
    edge(WASSERSTEIN, "ties", fixed([[1.0, 2.0, 1.0, 3.0]], [[3.0, 1.0, 0.0, 0.0]]), wasserstein_distance),
]
