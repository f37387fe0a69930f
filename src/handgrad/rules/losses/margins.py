"""Losses with a margin: what is right already is charged too, unless it is right by the margin."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from handgrad.checks import check_array, check_positive, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import (
    Losses,
    Prediction,
    Target,
    checked,
    counted,
    length_and_direction,
    per_example,
    pulled,
    target_cotangent,
    to_elements,
)

__all__ = [
    "HingeLossResiduals",
    "MarginRankingLossResiduals",
    "TripletLossResiduals",
    "hinge_loss",
    "hinge_loss_backward",
    "hinge_loss_forward",
    "margin_ranking_loss",
    "margin_ranking_loss_backward",
    "margin_ranking_loss_forward",
    "triplet_loss",
    "triplet_loss_backward",
    "triplet_loss_forward",
]

Vectors = Float[Array, "batch *rest n"]


class HingeLossResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def hinge_loss_forward(A: Prediction, Y: Target) -> tuple[Losses, HingeLossResiduals]:
    """C_b = Σ max(0, 1 − y a) for each example, of the outputs a of a decision function; y is −1 or 1.

    Derivation: docs/derivations/losses/margins.md (Cortes and Vapnik 1995)
    """
    a, y = checked("hinge_loss_forward", "prediction A", A, Y)
    return per_example(jnp.maximum(0, 1 - y * a), jnp.result_type(A, Y)), HingeLossResiduals(A, Y)


def hinge_loss_backward(residuals: HingeLossResiduals, dC: Losses) -> tuple[Prediction, Target | None]:
    """Pull dC back through the hinge loss; where y a = 1, half the slope, as jnp.maximum has it for a tie.

        dA = −dC ∘ Y ∘ H      dY = −dC ∘ A ∘ H      H = [Y ∘ A < 1], ½ where it is 1

    Derivation: docs/derivations/losses/margins.md
    """
    A, Y = check_residuals("hinge_loss_backward", residuals, HingeLossResiduals)
    dC = to_elements("hinge_loss_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    H = _charged(1 - y * a)
    return pulled(-dC, y * H, A), target_cotangent(-dC, counted(H, a) * H, Y)


hinge_loss = Rule(hinge_loss_forward, hinge_loss_backward)


class MarginRankingLossResiduals(NamedTuple):
    """The scores A and B, and Y: references, no copies."""

    A: Prediction
    B: Prediction
    Y: Target


def margin_ranking_loss_forward(
    A: Prediction, B: Prediction, Y: Target, *, margin: float = 0.0
) -> tuple[Losses, MarginRankingLossResiduals]:
    """C_b = Σ max(0, μ − y (a − b)) for each example: a is to be above b where y is 1, below it where y is −1.

    Args:
      margin: μ ≥ 0.
    Derivation: docs/derivations/losses/margins.md
    """
    where = "margin_ranking_loss_forward"
    a, y = checked(where, "scores A", A, Y)
    check_array(where, "the scores B", B)
    check_shape(where, "the scores B", B, A.shape, "like the scores A")
    _check_margin(where, margin)
    C = jnp.maximum(0, margin - y * (a - wide(B, A, Y)[0]))
    return per_example(C, jnp.result_type(A, B, Y)), MarginRankingLossResiduals(A, B, Y)


def margin_ranking_loss_backward(
    residuals: MarginRankingLossResiduals, dC: Losses, *, margin: float = 0.0
) -> tuple[Prediction, Prediction, Target | None]:
    """Pull dC back through C_b = Σ max(0, μ − y (a − b)); half the slope at the kink.

        dA = −dC ∘ Y ∘ H      dB = −dA      dY = −dC ∘ (A − B) ∘ H      H = [Y ∘ (A − B) < μ], ½ where it is μ

    Derivation: docs/derivations/losses/margins.md
    """
    A, B, Y = check_residuals("margin_ranking_loss_backward", residuals, MarginRankingLossResiduals)
    dC = to_elements("margin_ranking_loss_backward", dC, A, jnp.result_type(A, B, Y))
    a, b, y = wide(A, B, Y)
    H = _charged(margin - y * (a - b))
    return pulled(-dC, y * H, A), pulled(dC, y * H, B), target_cotangent(-dC, counted(H, a - b) * H, Y)


margin_ranking_loss = Rule(margin_ranking_loss_forward, margin_ranking_loss_backward)


class TripletLossResiduals(NamedTuple):
    """The anchors A, the positives P and the negatives N: references, no copies."""

    A: Vectors
    P: Vectors
    N: Vectors


def triplet_loss_forward(
    A: Vectors, P: Vectors, N: Vectors, *, margin: float = 1.0
) -> tuple[Losses, TripletLossResiduals]:
    """C_b = Σ max(0, ‖a − p‖ − ‖a − n‖ + μ) for each example: an anchor is to be nearer to p than to n, by μ.

    Args:
      A, P, N: vectors along the last axis.
      margin: μ ≥ 0.
    Derivation: docs/derivations/losses/margins.md (Weinberger and Saul 2009; Schroff et al. 2015)
    """
    where = "triplet_loss_forward"
    check_array(where, "the anchors A", A, min_ndim=2)
    for name, other in (("positives P", P), ("negatives N", N)):
        check_array(where, f"the {name}", other)
        check_shape(where, f"the {name}", other, A.shape, "like the anchors A")
    _check_margin(where, margin)
    (near, _), (far, _) = _distances(A, P, N)
    return per_example(jnp.maximum(0, near - far + margin), jnp.result_type(A, P, N)), TripletLossResiduals(A, P, N)


def triplet_loss_backward(
    residuals: TripletLossResiduals, dC: Losses, *, margin: float = 1.0
) -> tuple[Vectors, Vectors, Vectors]:
    """Pull dC back through the triplet loss; half the slope at the kink, and none of a distance of 0.

        dP = −dC ∘ H ∘ U      dN = dC ∘ H ∘ V      dA = −dP − dN

    U = (A − P) / ‖A − P‖, V = (A − N) / ‖A − N‖, H = [‖A − P‖ + μ > ‖A − N‖], ½ where they are equal.

    Derivation: docs/derivations/losses/margins.md
    """
    A, P, N = check_residuals("triplet_loss_backward", residuals, TripletLossResiduals)
    dC = to_elements("triplet_loss_backward", dC, A, jnp.result_type(A, P, N))
    (near, U), (far, V) = _distances(A, P, N)
    H = _charged(near - far + margin)
    return pulled(dC, H * (U - V), A), pulled(-dC, H * U, P), pulled(dC, H * V, N)


triplet_loss = Rule(triplet_loss_forward, triplet_loss_backward)


def _charged(excess: Array) -> Array:
    """The slope of max(0, excess): 1 above 0, ½ at it."""
    return (1 + jnp.sign(excess)) / 2


def _distances(A: Array, P: Array, N: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """‖a − p‖ and its direction, ‖a − n‖ and its."""
    a, p, n = wide(A, P, N)
    return length_and_direction(a - p), length_and_direction(a - n)


def _check_margin(where: str, margin: float) -> None:
    if margin != 0:
        check_positive(where, "margin", margin)
