"""Divergences of a prediction from its target: Kullback-Leibler, the Poisson loss of counts, Gaussian likelihoods."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import check_array, check_flags, check_positive, check_residuals, check_shape
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import (
    Losses,
    Prediction,
    Target,
    checked,
    counted,
    per_example,
    pulled,
    target_cotangent,
    to_elements,
)

__all__ = [
    "GaussianNllResiduals",
    "KlDivergenceResiduals",
    "PoissonLossResiduals",
    "gaussian_nll",
    "gaussian_nll_backward",
    "gaussian_nll_forward",
    "kl_divergence",
    "kl_divergence_backward",
    "kl_divergence_forward",
    "poisson_loss",
    "poisson_loss_backward",
    "poisson_loss_forward",
]


class KlDivergenceResiduals(NamedTuple):
    """The predicted log-probabilities L and the target Y: references, no copies."""

    L: Prediction
    Y: Target


def kl_divergence_forward(
    L: Prediction, Y: Target, *, log_target: bool = False
) -> tuple[Losses, KlDivergenceResiduals]:
    """C_b = Σ q (log q − ℓ) for each example, with 0 log 0 = 0: KL(q ‖ e^ℓ), ℓ as log_softmax makes them.

    Args:
      log_target: True if Y holds log q, not q.
    Derivation: docs/derivations/losses/divergences.md (Kullback and Leibler 1951)
    """
    checked("kl_divergence_forward", "log-probabilities L", L, Y)
    check_flags("kl_divergence_forward", log_target=log_target)
    ell, Q, log_Q = _probabilities(L, Y, log_target)
    # A log-probability of −∞ costs nothing where the target never happens.
    return per_example(Q * counted(Q, log_Q - ell), jnp.result_type(L, Y)), KlDivergenceResiduals(L, Y)


def kl_divergence_backward(
    residuals: KlDivergenceResiduals, dC: Losses, *, log_target: bool = False
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the divergence; where q = 0 the slope of q log q, −∞, counts as 0.

        dL = −dC ∘ Q      dQ = dC ∘ (log Q − L + 1)      of a log_target: dY = Q ∘ dQ

    dQ is 0 where q = 0 and ℓ = −∞.

    Derivation: docs/derivations/losses/divergences.md
    """
    L, Y = check_residuals("kl_divergence_backward", residuals, KlDivergenceResiduals)
    dC = to_elements("kl_divergence_backward", dC, L, jnp.result_type(L, Y))
    ell, Q, log_Q = _probabilities(L, Y, log_target)
    dQ = counted(Q, jnp.where(Q == 0, -ell, log_Q - ell + 1))
    return pulled(-dC, Q, L), target_cotangent(dC, Q * dQ if log_target else dQ, Y)


kl_divergence = Rule(kl_divergence_forward, kl_divergence_backward)


class PoissonLossResiduals(NamedTuple):
    """The prediction A and the target Y: references, no copies."""

    A: Prediction
    Y: Target


def poisson_loss_forward(
    A: Prediction, Y: Target, *, log_input: bool = True, full: bool = False, epsilon: float = 1e-8
) -> tuple[Losses, PoissonLossResiduals]:
    """C_b = Σ (e^a − y a) for each example: −log of Poisson's probability of y events where e^a are expected.

    What depends on y alone is left out, or approximated by Stirling's formula: full=True adds
    y log y − y + ½ log(2π y) where y > 1.

    Args:
      log_input: False if A holds the expected counts λ, not their logarithms: C_b = Σ (λ − y log(λ + ε)).
      full: True adds Stirling's term.
      epsilon: ε > 0, keeps log(λ + ε) finite at λ = 0; unused with log_input.
    Derivation: docs/derivations/losses/divergences.md
    """
    a, y = checked("poisson_loss_forward", "prediction A", A, Y)
    check_positive("poisson_loss_forward", "epsilon", epsilon)
    check_flags("poisson_loss_forward", log_input=log_input, full=full)
    # A rate of 0, whose logarithm is −∞, costs nothing where no event came.
    C = jnp.exp(a) - y * counted(y, a) if log_input else a - y * jnp.log(a + epsilon)
    if full:
        n = jnp.where(y > 1, y, 1)
        C = C + jnp.where(y > 1, n * (jnp.log(n) - 1) + (jnp.log(n) + math.log(2 * math.pi)) / 2, 0)
    return per_example(C, jnp.result_type(A, Y)), PoissonLossResiduals(A, Y)


def poisson_loss_backward(
    residuals: PoissonLossResiduals, dC: Losses, *, log_input: bool = True, full: bool = False, epsilon: float = 1e-8
) -> tuple[Prediction, Target | None]:
    """Pull dC back through the Poisson loss.

        dA = dC ∘ (e^A − Y)              dY = −dC ∘ A
        dA = dC ∘ (A − Y + ε) / (A + ε)      dY = −dC ∘ log(A + ε)      where A holds counts
        of Stirling's term: dY += dC ∘ (log Y + 1 / (2 Y)) where y > 1

    Near a = 0, e^a − y is (e^a − 1) + (1 − y), which keeps its digits at y = 1. dY is 0 where y = 0 and a = −∞.

    Derivation: docs/derivations/losses/divergences.md
    """
    A, Y = check_residuals("poisson_loss_backward", residuals, PoissonLossResiduals)
    dC = to_elements("poisson_loss_backward", dC, A, jnp.result_type(A, Y))
    a, y = wide(A, Y)
    if log_input:
        slope = jnp.where(jnp.abs(a) < 0.5, jnp.expm1(a) + (1 - y), jnp.exp(a) - y)
        log_rate = counted(y, a)
    else:
        slope, log_rate = (a - y + epsilon) / (a + epsilon), jnp.log(a + epsilon)
    dY = -log_rate
    if full:
        n = jnp.where(y > 1, y, 1)
        dY = jnp.where(y > 1, jnp.log(n) - log_rate + 0.5 / n, dY)
    return pulled(dC, slope, A), target_cotangent(dC, dY, Y)


poisson_loss = Rule(poisson_loss_forward, poisson_loss_backward)


class GaussianNllResiduals(NamedTuple):
    """The mean A, the variance V and the target Y: references, no copies."""

    A: Prediction
    V: Prediction
    Y: Target


def gaussian_nll_forward(
    A: Prediction, V: Prediction, Y: Target, *, full: bool = False, epsilon: float = 1e-6
) -> tuple[Losses, GaussianNllResiduals]:
    """C_b = ½ Σ (log v + (a − y)² / v) for each example: −log of the normal density, its mean and variance predicted.

    Args:
      V: the variance of each element.
      full: True adds the constant ½ log 2π of each element.
      epsilon: ε > 0: a variance below it counts as ε, and has no slope.
    Derivation: docs/derivations/losses/divergences.md (Nix and Weigend 1994)
    """
    where = "gaussian_nll_forward"
    checked(where, "mean A", A, Y)
    check_array(where, "the variance V", V)
    check_shape(where, "the variance V", V, A.shape, "like the mean A")
    check_positive(where, "epsilon", epsilon)
    check_flags(where, full=full)
    a, v, y = wide(A, V, Y)
    v = jnp.where(v < epsilon, epsilon, v)
    C = (jnp.log(v) + (a - y) / v * (a - y) + (math.log(2 * math.pi) if full else 0)) / 2
    return per_example(C, jnp.result_type(A, V, Y)), GaussianNllResiduals(A, V, Y)


def gaussian_nll_backward(
    residuals: GaussianNllResiduals, dC: Losses, *, full: bool = False, epsilon: float = 1e-6
) -> tuple[Prediction, Prediction, Target | None]:
    """Pull dC back through the Gaussian likelihood, E = A − Y.

        dA = dC ∘ E / V      dV = ½ dC ∘ (V − E²) / V², 0 where v < ε      dY = −dA

    Derivation: docs/derivations/losses/divergences.md
    """
    A, V, Y = check_residuals("gaussian_nll_backward", residuals, GaussianNllResiduals)
    dC = to_elements("gaussian_nll_backward", dC, A, jnp.result_type(A, V, Y))
    a, v, y = wide(A, V, Y)
    held = jnp.where(v < epsilon, epsilon, v)
    slope = (a - y) / held
    D = pulled(dC, slope, slope)
    dV = jnp.where(v < epsilon, 0, (pulled(dC, 1 / held, v) - pulled(D, slope, v)) / 2)  # slope² may overflow
    return D.astype(A.dtype), dV.astype(V.dtype), target_cotangent(-dC, slope, Y)


gaussian_nll = Rule(gaussian_nll_forward, gaussian_nll_backward)


def _probabilities(L: Array, Y: Array, log_target: bool) -> tuple[Array, Array, Array]:
    """ℓ, q, and log q with 0 in the place of log 0."""
    ell, y = wide(L, Y)
    if not log_target:
        return ell, y, jnp.log(jnp.where(y == 0, 1, y))
    Q = jnp.exp(y)
    return ell, Q, jnp.where(Q == 0, 0, y)
