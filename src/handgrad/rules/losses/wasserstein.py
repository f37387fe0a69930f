"""The Wasserstein distance in one dimension: sorted, the two samples are matched one to one."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from handgrad import meshes
from handgrad.checks import check_array, check_choice, check_residuals, check_target
from handgrad.rule import Rule
from handgrad.rules._wide import wide
from handgrad.rules.losses._losses import Losses, per_example, pulled, target_cotangent, to_elements

__all__ = [
    "WassersteinDistanceResiduals",
    "wasserstein_distance",
    "wasserstein_distance_backward",
    "wasserstein_distance_forward",
]

Samples = Float[Array, "batch *rest n"]
Targets = Real[Array, "batch *rest n"]
Order = Literal[1, 2]


class WassersteinDistanceResiduals(NamedTuple):
    """The samples A and Y: references, no copies."""

    A: Samples
    Y: Targets


def wasserstein_distance_forward(
    A: Samples, Y: Targets, *, order: Order = 1
) -> tuple[Losses, WassersteinDistanceResiduals]:
    """C_b = Σ (1/n) Σ_i |a_(i) − y_(i)|^p for each example, a_(1) ≤ a_(2) ≤ … the sample a along the last axis, sorted.

    That is W₁ of the two empirical distributions with order 1, and W₂² with order 2.

    Args:
      order: p, 1 or 2.
    Derivation: docs/derivations/losses/wasserstein.md
    """
    where = "wasserstein_distance_forward"
    check_array(where, "the samples A", A, min_ndim=2)
    check_target(where, Y, A.shape, "like the samples A")
    check_choice(where, "order", order, (1, 2))
    a, y = wide(A, Y)
    E = meshes.along_batch(lambda a, y: jnp.sort(a, axis=-1) - jnp.sort(y, axis=-1), a, y)
    C = (E * jnp.sign(E) if order == 1 else E * E) / A.shape[-1]
    return per_example(C, jnp.result_type(A, Y)), WassersteinDistanceResiduals(A, Y)


def wasserstein_distance_backward(
    residuals: WassersteinDistanceResiduals, dC: Losses, *, order: Order = 1
) -> tuple[Samples, Targets | None]:
    """Pull dC back through the matching, Π_A and Π_Y being the permutations that sort: each a pulls at its own y.

        dA = dC ∘ F Π_A / n      dY = −dC ∘ F Π_Y / n      F = sign(E) or 2 E, E = A Π_Aᵀ − Y Π_Yᵀ

    Equal elements are matched in their order. sign(0) = 0.

    Derivation: docs/derivations/losses/wasserstein.md
    """
    A, Y = check_residuals("wasserstein_distance_backward", residuals, WassersteinDistanceResiduals)
    dC = to_elements("wasserstein_distance_backward", dC, A, jnp.result_type(A, Y))
    of_A, of_Y = meshes.along_batch(lambda a, y: _differences(a, y), *wide(A, Y))
    if order == 1:
        of_A, of_Y = jnp.sign(of_A), jnp.sign(of_Y)
    dC = order * dC / A.shape[-1]
    return pulled(dC, of_A, A), target_cotangent(dC, of_Y, Y)


wasserstein_distance = Rule(wasserstein_distance_forward, wasserstein_distance_backward)


def _differences(a: Samples, y: Samples) -> tuple[Samples, Samples]:
    """Each a minus the y that it is matched with, and each y minus its a."""
    in_order = [jnp.take_along_axis(x, _order(x), axis=-1) for x in (a, y)]
    E = in_order[0] - in_order[1]
    return _put_back(E, a), _put_back(-E, y)


def _put_back(E: Samples, x: Samples) -> Samples:
    """The element of each rank, where the x of this rank is: the inverse of a permutation is what sorts it."""
    return jnp.take_along_axis(E, _order(_order(x)), axis=-1)


def _order(x: Array) -> Int[Array, "batch *rest n"]:
    return jnp.argsort(x, axis=-1, stable=True)
