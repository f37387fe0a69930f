"""The errors that gradients have: one catalogue, which makes them on purpose and recognizes them."""

from handgrad.crosscheck.errors.diagnose import Specimen, diagnose
from handgrad.crosscheck.errors.mutants import Mutant, control, output_mutants, same

__all__ = ["Mutant", "Specimen", "control", "diagnose", "output_mutants", "same"]
