"""What bends: products with the GGN and the Hessian, diagonals, and Kronecker factors, from the same factors.

Everywhere the objective is the mean over the batch, as in `objective`: Σ_b w_b loss_b, with 1 / batch for each w_b
where nobody gives others.
"""

from handgrad.folds.curvature.blocks import Diagonal, Kronecker
from handgrad.folds.curvature.diagonals import empirical_fisher_diagonal, ggn_diagonal
from handgrad.folds.curvature.kfac import kfac_factors, kflr_factors
from handgrad.folds.curvature.products import ggn_vector_product, hessian_vector_product
from handgrad.folds.curvature.roots import sampled_factors

__all__ = [
    "Diagonal",
    "Kronecker",
    "empirical_fisher_diagonal",
    "ggn_diagonal",
    "ggn_vector_product",
    "hessian_vector_product",
    "kfac_factors",
    "kflr_factors",
    "sampled_factors",
]
