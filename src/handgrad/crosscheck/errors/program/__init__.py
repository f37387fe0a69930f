"""The gradient under test as a program: run step by step, and changed one step at a time."""

from handgrad.crosscheck.errors.program.mutants import program_mutants as program_mutants
