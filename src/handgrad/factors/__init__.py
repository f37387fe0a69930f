"""Gradients not yet multiplied out. One factor, one file."""

from handgrad.factors.base import Factor, is_factor
from handgrad.factors.contraction import Contraction
from handgrad.factors.correlation import Correlation
from handgrad.factors.coupled import Coupled
from handgrad.factors.hadamard import Hadamard
from handgrad.factors.outer import Outer
from handgrad.factors.per_example import PerExample
from handgrad.factors.recomputed import Recomputed
from handgrad.factors.scatter import Scatter
from handgrad.factors.shared import Shared
from handgrad.factors.stacked import Stacked
from handgrad.factors.total import Total
from handgrad.factors.trees import materialize

__all__ = [
    "Contraction",
    "Correlation",
    "Coupled",
    "Factor",
    "Hadamard",
    "Outer",
    "PerExample",
    "Recomputed",
    "Scatter",
    "Shared",
    "Stacked",
    "Total",
    "is_factor",
    "materialize",
]
