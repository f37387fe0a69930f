"""Diagonals of the empirical Fisher and of the GGN: second moments of the factors."""

from typing import Any

import jax

from handgrad.folds.curvature.roots import mean_over_the_root
from handgrad.folds.per_example import map_factors
from handgrad.layers import Layer, Loss

Array = jax.Array


def empirical_fisher_diagonal(factors: Any) -> Any:
    """1/N Σ_b g_b ∘ g_b: the diagonal of the empirical Fisher, an array like each parameter.

    Args:
      factors: of `value_and_factors`; of `sampled_factors` for an estimate of the true Fisher's.
    Returns:
      An array in each factor's place, in float32 at least.
    Raises:
      InputError: a gradient that its layer has summed already, with its name.
    Derivation: docs/curvature.md
    """
    return map_factors("empirical_fisher_diagonal", _mean_square, factors)


def ggn_diagonal(
    model: Layer,
    loss: Loss,
    params: Any,
    x: Any,
    target: Any,
    draw_key: Array | None = None,
    samples: int | None = None,
    key: Array | None = None,
) -> Any:
    """The diagonal of the GGN 1/N Σ_b J_bᵀ H_b J_b: 1/N Σ_b Σ_c g_bc ∘ g_bc, with g_bc = J_bᵀ s_bc.

    s_bc is column c of a root S_b of the loss's Hessian, H_b = S_b S_bᵀ: a backward pass for each element of an
    example's prediction. With `samples`, it takes so many draws of `sampled_factors` in their place: an unbiased
    estimate.

    Args:
      model, loss: as `objective`; the loss must have a `root`, or a `draw` where there are samples.
      params, x, target: as `objective`.
      draw_key, samples: for an estimate, where the draws come from and how many; None for the exact diagonal.
      key: for the noise of layers that draw some: that of `value_and_factors` with this key, the same in every pass.
    Returns:
      An array in each parameter's place, in float32 at least.
    Raises:
      InputError: model is not a Layer; loss is not a Loss, or has no root (draw); a draw_key without samples or samples
        without a draw_key; samples is not a positive integer; at trace time, as `objective`, and a gradient that its
        layer has summed already, with its name.
    Derivation: docs/curvature.md (Dangel, Kunstner & Hennig 2020, https://arxiv.org/abs/1912.10985)
    """

    def fold(factors):
        return map_factors("ggn_diagonal", _mean_square, factors)

    mean, columns = mean_over_the_root("ggn_diagonal", model, loss, params, x, target, draw_key, samples, key, fold)
    return jax.tree.map(lambda d: columns * d, mean)


def _mean_square(factor):
    return factor.second_moment() / factor.batch
