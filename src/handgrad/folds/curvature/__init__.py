"""Curvature from factors: products with the GGN and the Hessian, diagonals, and Kronecker factors.

The objective is the mean over the batch, as in `objective`: Σ_b w_b loss_b, where w_b is 1 / batch by default.
"""

from handgrad.folds.curvature.blocks import Diagonal as Diagonal, Kronecker as Kronecker
from handgrad.folds.curvature.diagonals import (
    empirical_fisher_diagonal as empirical_fisher_diagonal,
    ggn_diagonal as ggn_diagonal,
)
from handgrad.folds.curvature.kfac import kfac_factors as kfac_factors, kflr_factors as kflr_factors
from handgrad.folds.curvature.products import (
    ggn_vector_product as ggn_vector_product,
    hessian_vector_product as hessian_vector_product,
)
from handgrad.folds.curvature.roots import sampled_factors as sampled_factors
