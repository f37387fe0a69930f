"""A user's functions, called: what they raise, and whether their outputs fit each other."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from handgrad.crosscheck.subject.arguments import Function, ProblemError, is_inexact, put
from handgrad.crosscheck.subject.compiling import NEEDS_NUMBERS
from handgrad.crosscheck.subject.problem import Problem
from handgrad.crosscheck.subject.words import describe, first_line, keystr


def guarded(problem: Problem, who: Any, function: Function, *arguments: Any) -> Any:
    """A function's own error becomes the cause of a ProblemError; that it needs numbers is passed on."""
    try:
        return function(*arguments)
    except (ProblemError, *NEEDS_NUMBERS):
        raise
    except (Exception, SystemExit) as error:
        # Without a reference, what raises is the function under test.
        blamed = who if not problem.own_reference else "hand"
        what = problem.name if blamed == "hand" else f"{problem.name}: the reference, {problem.reference},"
        raise ProblemError(f"{what} raised {first_line(error)}", blamed, who == "reference") from error


def output_shapes(function: Function, problem: Problem, who: Literal["hand", "reference"]) -> tuple[Any, bool]:
    """The output's structure, shapes and dtypes, and whether JAX traces the function."""
    try:
        return guarded(problem, who, jax.eval_shape, function, problem.leaves), True
    except NEEDS_NUMBERS:
        return guarded(problem, who, function, problem.leaves), False


def runs_by_steps(problem: Problem) -> bool:
    """Whether JAX differentiates the reference at concrete numbers: control flow on values."""
    leaves, wanted = problem.leaves, problem.wanted
    chosen = [jnp.asarray(leaves[i]) for i in wanted]
    try:
        jax.vjp(lambda chosen: problem.primal(put(leaves, wanted, chosen)), chosen)
    except Exception:  # whatever another library says of JAX's tracers
        return False
    return True


def check_outputs(problem: Problem, mine: Any, theirs: Any) -> None:
    """The forward pass and the reference return the same structure and shapes."""
    if not any(is_inexact(y) for y in jax.tree.leaves(mine)):
        raise ProblemError(f"{problem.name}: the output must have a floating-point array, got {describe(mine)}")
    one, two = jax.tree.structure(mine), jax.tree.structure(theirs)
    if one != two:
        raise ProblemError(
            f"{problem.name}: the reference, {problem.reference}, must have the output's structure, {one}, got {two}"
        )
    for (path, y), reference in zip(jax.tree.leaves_with_path(mine), jax.tree.leaves(theirs), strict=True):
        if jnp.shape(y) != jnp.shape(reference):
            raise ProblemError(
                f"{problem.name}: the reference, {problem.reference}, must have the output's shape, "
                f"{jnp.shape(y)}, got {jnp.shape(reference)}{f' at {keystr(path)}' if path else ''}"
            )
