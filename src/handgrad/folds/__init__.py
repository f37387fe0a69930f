"""What factors know beyond the gradient: per-example norms, clipping, variance, costs, curvature."""

from handgrad.folds.clipping import ClippedAux as ClippedAux, clipped_grad as clipped_grad
from handgrad.folds.costs import Costs as Costs, costs as costs
from handgrad.folds.curvature import (
    Diagonal as Diagonal,
    Kronecker as Kronecker,
    empirical_fisher_diagonal as empirical_fisher_diagonal,
    ggn_diagonal as ggn_diagonal,
    ggn_vector_product as ggn_vector_product,
    hessian_vector_product as hessian_vector_product,
    kfac_factors as kfac_factors,
    kflr_factors as kflr_factors,
    sampled_factors as sampled_factors,
)
from handgrad.folds.per_example import (
    NoiseScale as NoiseScale,
    gram as gram,
    noise_scale as noise_scale,
    per_example_grads as per_example_grads,
    project as project,
    second_moment as second_moment,
    sq_norms as sq_norms,
    variance as variance,
)
