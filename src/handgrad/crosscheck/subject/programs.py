"""A problem's functions, compiled once and run on NumPy arrays, each in the world that it belongs to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.subject.arguments import (
    Leaves,
    ProblemError,
    describe,
    first_line,
    is_inexact,
    keystr,
    put,
    widened,
)
from handgrad.crosscheck.subject.problem import Problem

# A check runs each program a few times, so compiling is its price: XLA's older code generator for CPUs takes two thirds
# of the time. Where a version of XLA doesn't know the name, its own defaults do. (Optimization level 0 would be quicker
# still, but XLA's code is then wrong: NaN, or 14 % off, in the autodiff half of one random network in a hundred.)
QUICK_TO_COMPILE: dict[str, bool | str] = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": "3",  # whatever XLA_FLAGS says
}


# What a program raises that asks a traced array for its numbers: it may still be right when run step by step.
NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
)


@contextmanager
def precise(x64: bool) -> Iterator[None]:
    """64-bit types on or off, matrix products in full precision; the caller's settings come back, whatever happens."""
    with jax.enable_x64(x64), jax.default_matmul_precision("highest"), jax.debug_nans(False), jax.disable_jit(False):
        yield


class Programs:
    """What a problem is asked, compiled when first asked.

    Attributes:
      problem: the problem.
      output_names: the paths of the output's leaves that have a gradient.
      outputs: their shapes and dtypes, by hand.
      compiles: False where the function under test needs concrete numbers, so that it runs step by step.
    Raises:
      ProblemError: the forward pass and the reference return other structures or shapes; either raises.
    """

    def __init__(self, problem: Problem):
        self.problem = problem
        self.compiles = True
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._jaxprs: dict[Any, Any] = {}
        with precise(problem.x64):
            mine = self._shapes(problem.forward, f"{problem.name}: the forward pass")
            theirs = self._shapes(problem.target, f"{problem.name}: the reference, {problem.reference},")
            _check_outputs(problem, mine, theirs)
            flat = [(keystr(path), y) for path, y in jax.tree.leaves_with_path(mine) if is_inexact(y)]
            self.output_names = [name or "Y" for name, _ in flat]
            self.outputs = [jax.ShapeDtypeStruct(jnp.shape(y), jnp.result_type(y)) for _, y in flat]

    def by_hand(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """(Ys, cotangents) of the function under test, in its own dtype."""
        with precise(self.problem.x64):
            return self._run("run", self.problem.run, leaves, dYs)

    def by_hand_eager(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """The same, step by step."""
        with precise(self.problem.x64):
            return _numpy(_guarded(self.problem, self.problem.run, _jax(leaves), _jax(dYs)))

    def by_autodiff(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """(Ys, cotangents) by jax.vjp of the reference, in the given dtype."""
        with precise(self.problem.x64):
            return self._run("pullback", self.problem.pullback, leaves, dYs)

    def in_float64(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """The same in float64 (complex128)."""
        with precise(True):
            return self._run("pullback", self.problem.pullback, widened(leaves), widened(dYs))

    def primal(self, leaves: Leaves) -> Leaves:
        """The reference's output in float64; the leaves are wide already."""
        with precise(True):
            return self._run("primal", self.problem.primal, leaves)

    def eager_primal(self, leaves: Leaves) -> Leaves:
        """The same step by step, in whatever dtype it is given: complex numbers for the complex step."""
        with precise(True):
            return _numpy(self.problem.primal(_jax(leaves)))

    def tangent(self, leaves: Leaves, directions: Leaves) -> Leaves:
        """J v in float64, by jax.jvp; `directions` are wide, one for each wanted leaf."""
        with precise(True):
            return self._run("tangent", self._tangent, widened(leaves), directions)

    def jaxpr(self, leaves: Leaves, dYs: Leaves) -> Any:
        """The reference's pullback in float64, traced."""
        with precise(True):
            key = _key("pullback", (widened(leaves), widened(dYs)))
            if key not in self._jaxprs:
                self._jaxprs[key] = jax.make_jaxpr(self.problem.pullback)(widened(leaves), widened(dYs))
            return self._jaxprs[key]

    def _tangent(self, leaves: Leaves, directions: Leaves) -> Leaves:
        wanted = self.problem.wanted

        def of_wanted(chosen: Leaves) -> Leaves:
            return self.problem.primal(put(leaves, wanted, chosen))

        return jax.jvp(of_wanted, ([jnp.asarray(leaves[i]) for i in wanted],), (directions,))[1]

    def _run(self, name: str, function: Callable[..., Any], *arguments: Leaves) -> Any:
        if not self.compiles and name == "run":
            return _numpy(_guarded(self.problem, function, *_jax(arguments)))
        key = _key(name, arguments)
        if key not in self._compiled:
            try:
                self._compiled[key], self._jaxprs[key] = _guarded(self.problem, _compile, function, _jax(arguments))
            except NEEDS_NUMBERS as error:
                if name == "run":
                    self.compiles = False
                try:
                    return _numpy(_guarded(self.problem, function, *_jax(arguments)))
                except NEEDS_NUMBERS:
                    words = f"{self.problem.reference}, can't be traced by JAX"
                    raise ProblemError(f"{self.problem.name}: the reference, {words}: give another one") from error
        # Differences call a program a thousand times; NumPy's arrays cost a tenth of what making JAX's would.
        return _numpy(_guarded(self.problem, self._compiled[key], *arguments))

    def _shapes(self, function: Callable[..., Any], who: str) -> Any:
        try:
            return jax.eval_shape(function, self.problem.leaves)
        except NEEDS_NUMBERS:
            pass
        except ProblemError:
            raise
        except Exception as error:
            raise ProblemError(f"{who} raised {first_line(error)}") from error
        return _guarded(self.problem, function, _jax(self.problem.leaves))


def _compile(function: Callable[..., Any], arguments: Any) -> tuple[Callable[..., Any], Any]:
    """The compiled program, and its jaxpr."""
    traced = jax.jit(function).trace(*arguments)
    lowered = traced.lower()
    try:
        return lowered.compile(QUICK_TO_COMPILE), traced.jaxpr
    except jax.errors.JaxRuntimeError:
        return lowered.compile(), traced.jaxpr


def _key(name: str, given: tuple[Leaves, ...]) -> Any:
    return name, tuple((leaf.shape, leaf.dtype) for leaves in given for leaf in leaves)


def _guarded(problem: Problem, function: Callable[..., Any], *arguments: Any) -> Any:
    """A function's own error becomes the cause of a ProblemError; that it needs numbers is passed on."""
    try:
        return function(*arguments)
    except (ProblemError, *NEEDS_NUMBERS):
        raise
    except Exception as error:
        raise ProblemError(f"{problem.name} raised {first_line(error)}") from error


def _jax(arrays: Any) -> Any:
    return jax.device_put(arrays)  # jnp.asarray would compile a copy for every shape


def _numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def _check_outputs(problem: Problem, mine: Any, theirs: Any) -> None:
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
