"""Diagonals of the empirical Fisher and of the GGN: second moments of the factors."""

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.factors import Factor
from handgrad.folds.curvature.roots import mean_over_the_root
from handgrad.folds.per_example import map_factors
from handgrad.layers import Layer, Loss


def empirical_fisher_diagonal(factors: PyTree[Factor]) -> PyTree[Array]:
    """1/N Σ_b g_b ∘ g_b: the diagonal of the empirical Fisher, an array like each parameter, in float32 at least.

    Args:
      factors: of `value_and_factors`; of `sampled_factors` for an estimate of the true Fisher's.
    Derivation: docs/curvature.md
    """
    return map_factors("empirical_fisher_diagonal", _mean_square, factors)


def ggn_diagonal(
    model: Layer,
    loss: Loss,
    params: PyTree,
    x: PyTree,
    target: PyTree,
    draw_key: PRNGKeyArray | None = None,
    samples: int | None = None,
    key: PRNGKeyArray | None = None,
) -> PyTree[Array]:
    """The diagonal of the GGN 1/N Σ_b J_bᵀ H_b J_b: 1/N Σ_b Σ_c g_bc ∘ g_bc, with g_bc = J_bᵀ s_bc.

    s_bc is column c of a root S_b of the loss's Hessian, H_b = S_b S_bᵀ: one backward pass for each element of an
    example's prediction. With `samples`, as many draws of `sampled_factors` take their place: an unbiased estimate.

    Args:
      model, loss, params, x, target: as `objective`; the loss must have a `root`, or a `draw` where there are samples.
      draw_key, samples: for an estimate, the key and the number of its draws; None for the exact diagonal.
      key: for layers that draw noise: one draw, that of `value_and_factors` with this key, in every pass.
    Returns:
      An array in each parameter's place, in float32 at least.
    Raises:
      InputError: a loss without a root (draw); a draw_key without samples or samples without a draw_key; as `objective`
        and `sq_norms`.
    Derivation: docs/curvature.md (Dangel, Kunstner & Hennig 2020, https://arxiv.org/abs/1912.10985)
    """

    def fold(factors: PyTree[Factor]) -> PyTree[Array]:
        return map_factors("ggn_diagonal", _mean_square, factors)

    mean, columns = mean_over_the_root("ggn_diagonal", model, loss, params, x, target, draw_key, samples, key, fold)
    return jax.tree.map(lambda d: columns * d, mean)


def _mean_square(factor: Factor) -> Array:
    return factor.second_moment() / factor.batch
