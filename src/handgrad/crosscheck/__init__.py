"""The checker: it knows JAX and factors, and no rule."""

from handgrad.crosscheck.compare import Comparison, Job, compare, compare_all, relative_error

__all__ = ["Comparison", "Job", "compare", "compare_all", "relative_error"]
