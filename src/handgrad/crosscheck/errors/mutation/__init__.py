"""The backward program broken on purpose."""

from handgrad.crosscheck.errors.mutation.program import program_mutants

__all__ = ["program_mutants"]
