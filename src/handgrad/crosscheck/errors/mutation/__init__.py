"""The negative control: a gradient broken on purpose, in its numbers and in its program."""

from handgrad.crosscheck.errors.mutation.outputs import Mutant, control, output_mutants, same
from handgrad.crosscheck.errors.mutation.program import program_mutants

__all__ = ["Mutant", "control", "output_mutants", "program_mutants", "same"]
