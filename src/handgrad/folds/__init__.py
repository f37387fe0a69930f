"""What factors know beyond the gradient: norms, clipping, variance, costs, curvature."""
