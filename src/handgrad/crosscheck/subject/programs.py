"""A problem's functions, compiled once and run on NumPy arrays, each in the types that it belongs to."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.subject.arguments import (
    Function,
    Leaves,
    ProblemError,
    describe,
    first_line,
    is_inexact,
    keystr,
    put,
    widened,
)
from handgrad.crosscheck.subject.held import draws, hold, primitives
from handgrad.crosscheck.subject.problem import Problem, pullback

# A check runs each program a few times, so compiling is its price: XLA's older code generator for CPUs and LLVM's first
# level take half of the time. Where a version of XLA doesn't know a name, its own defaults do. (Level 0 would be faster
# still, but XLA's code is then wrong: NaN, or 14 % off, in the autodiff half of one random network in a hundred.)
QUICK_TO_COMPILE: dict[str, bool | str] = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_backend_optimization_level": "1",  # whatever XLA_FLAGS says
}
APART = 2**18  # numbers, in and out, above which running costs more than compiling: a program for each function

# What a program raises that depends on a traced array's numbers: it may still be right when run step by step.
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


class Both(NamedTuple):
    """What one program gives: by hand and by autodiff of the reference, in the given dtype."""

    hand: tuple[Leaves, Leaves]
    autodiff: tuple[Leaves, Leaves]


class Programs:
    """What a check runs, compiled at the first run.

    Two programs serve most of a check: the gradient by hand beside the reference's, and the reference with its forward
    mode. Where a float64 truth is another program than the reference's, there are three.

    Args:
      problem: the problem.
      shared: float64's programs of the same reference, filled here and used again by a check in another dtype.

    Attributes:
      problem: the problem.
      output_names: the paths of the output's leaves that have a gradient.
      outputs: their shapes and dtypes, by hand.
      compiles: False where the function under test needs concrete numbers, so that it runs step by step.
      calls_back: whether the compiled functions call Python, which may keep state from one call to the next.
      wide: whether the inputs are float64 or complex128 already.
      without_autodiff: why JAX can't differentiate the reference (a function of NumPy, a while loop); "" where it can.
      held: False where the function draws random numbers that float64 would draw otherwise, and nothing could hold.
    Raises:
      ProblemError: the forward pass and the reference return other structures or shapes; either raises.
    """

    needs_numbers = NEEDS_NUMBERS

    def __init__(self, problem: Problem, shared: dict[Any, Function] | None = None):
        self.problem = problem
        self.compiles, self.held, self.calls_back, self.without_autodiff = True, True, False, ""
        self._compiled: dict[Any, Function] = {}
        self._shared = {} if shared is None else shared
        self._jaxprs: dict[Any, Any] = {}
        self._last: tuple[Leaves, Leaves, Both] | None = None
        self._has_forward_mode = True
        with precise(problem.x64):
            mine = _shapes(problem.forward, problem, "hand")
            theirs = _shapes(problem.target, problem, "reference")
            self._traces = self._is_traceable()
            if not self._traces:
                self.without_autodiff = "JAX can't trace the reference"
            _check_outputs(problem, mine, theirs)
            flat = [(keystr(path), y) for path, y in jax.tree.leaves_with_path(mine) if is_inexact(y)]
            self.output_names = [name or "Y" for name, _ in flat]
            self.outputs = [jax.ShapeDtypeStruct(jnp.shape(y), jnp.result_type(y)) for _, y in flat]
        size = sum(math.prod(np.shape(a)) for a in [*problem.leaves, *self.outputs])
        self._apart = size > APART
        self.wide = all(leaf.dtype in (np.float64, np.complex128) for leaf in problem.leaves if is_inexact(leaf))
        self._wide_primal = self._in_float64()

    def _is_traceable(self) -> bool:
        leaves = self.problem.leaves
        try:
            jax.eval_shape(self.problem.primal, leaves)
        except NEEDS_NUMBERS:
            pass
        else:
            return True
        try:  # control flow on values: autodiff of what runs step by step
            jax.vjp(lambda chosen: self.problem.primal(put(leaves, self.problem.wanted, chosen)), _wanted(self.problem))
        except Exception:  # whatever another library says of JAX's tracers
            return False
        return True

    def by_hand(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """(Ys, cotangents) of the function under test, in its own dtype."""
        if self._apart or not self.compiles or self.without_autodiff:
            with precise(self.problem.x64):
                return self._by_hand_alone(leaves, dYs)
        return self._both(leaves, dYs).hand

    def by_hand_eager(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """The same, step by step."""
        with precise(self.problem.x64):
            return _numpy(_guarded(self.problem, "hand", self.problem.run, _jax(leaves), _jax(dYs)))

    def by_autodiff(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """(Ys, cotangents) by jax.vjp of the reference, in the given dtype."""
        if self._apart or not self.compiles:
            with precise(self.problem.x64):
                return self._run("pullback", pullback(self.problem.primal, self.problem.wanted), leaves, dYs)
        return self._both(leaves, dYs).autodiff

    def in_float64(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """The same in float64 (complex128)."""
        if self.wide:
            return self.by_autodiff(leaves, dYs)
        with precise(True):
            return self._run(
                "pullback",
                pullback(self._wide_primal, self.problem.wanted),
                widened(leaves),
                widened(dYs),
                programs=self._shared,
            )

    def primal(self, leaves: Leaves) -> Leaves:
        """The reference's output in float64; the leaves are wide already."""
        if not self._traces:
            with precise(True):
                return _numpy(_guarded(self.problem, "reference", self.problem.primal, leaves))
        if self._has_forward_mode and not self._apart:
            still = [np.zeros_like(leaves[i]) for i in self.problem.wanted]
            try:
                return self._forward_mode(leaves, still)[0]
            except (ProblemError, TypeError):
                self._has_forward_mode = False
        with precise(True):
            return self._run("primal", self._wide_primal, leaves)

    def eager_primal(self, leaves: Leaves) -> Leaves:
        """The same step by step, in whatever dtype it is given: complex numbers for the complex step."""
        with precise(True):
            return _numpy(self.problem.primal(_jax(leaves)))

    def tangent(self, leaves: Leaves, directions: Leaves) -> Leaves:
        """J v in float64, by jax.jvp; `directions` are wide, one for each wanted leaf.

        Raises:
          ProblemError, TypeError: the reference has no forward mode.
        """
        return self._forward_mode(widened(leaves), directions)[1]

    def jaxpr(self, leaves: Leaves, dYs: Leaves, only: int | None = None) -> Any:
        """The reference's pullback in float64, traced, from one leaf of the output alone or from all; None where it
        depends on numbers."""
        leaves, dYs = widened(leaves), widened(dYs)
        key = only, _key("pullback", (leaves, dYs))
        if key not in self._jaxprs:
            primal = self._wide_primal if only is None else lambda leaves: [self._wide_primal(leaves)[only]]
            dYs = dYs if only is None else [dYs[only]]
            with precise(True):
                try:
                    self._jaxprs[key] = jax.make_jaxpr(pullback(primal, self.problem.wanted))(leaves, dYs)
                except NEEDS_NUMBERS:
                    self._jaxprs[key] = None
        return self._jaxprs[key]

    def shapes(self, leaves: Leaves, dYs: Leaves) -> Both:
        """What `by_hand` and `by_autodiff` would return, as shapes and dtypes: nothing is compiled.

        Raises:
          ProblemError: either raises; its culprit says which.
        """
        with precise(self.problem.x64):
            theirs = _guarded(
                self.problem,
                "reference",
                lambda: jax.eval_shape(pullback(self.problem.primal, self.problem.wanted), leaves, dYs),
            )
            mine = _guarded(self.problem, "hand", lambda: jax.eval_shape(self.problem.run, leaves, dYs))
        return Both(mine, theirs)

    def _both(self, leaves: Leaves, dYs: Leaves) -> Both:
        """Both gradients by one program; a second call with the same lists costs nothing."""
        if self._last is not None and self._last[0] is leaves and self._last[1] is dYs:
            return self._last[2]
        problem = self.problem
        by_autodiff = pullback(problem.primal, problem.wanted)

        def both(leaves: Leaves, dYs: Leaves) -> Both:
            return Both(
                _guarded(problem, "hand", problem.run, leaves, dYs),
                _guarded(problem, "reference", by_autodiff, leaves, dYs),
            )

        with precise(problem.x64):
            key = _key("both", (leaves, dYs))
            if key not in self._compiled:
                try:
                    self._compiled[key], jaxpr = _compile(both, _jax((leaves, dYs)))
                    self.calls_back |= any("callback" in name for name in primitives(jaxpr))
                except NEEDS_NUMBERS:
                    found = Both(self._by_hand_alone(leaves, dYs), self._run("pullback", by_autodiff, leaves, dYs))
                    if self.compiles:  # then it is the reference: each by a program of its own from here
                        self._apart = True
                    return found
            found = _numpy(_guarded(problem, "hand", self._compiled[key], leaves, dYs))
        self._last = (leaves, dYs, found)
        return found

    def _by_hand_alone(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        if self.compiles:
            try:
                return self._run("run", self.problem.run, leaves, dYs, who="hand", by_steps=False)
            except NEEDS_NUMBERS:
                self.compiles = False
        # NumPy's own functions get NumPy's own arrays.
        leaves, dYs = (leaves, dYs) if not self._traces else _jax((leaves, dYs))
        return _numpy(_guarded(self.problem, "hand", self.problem.run, leaves, dYs))

    def _forward_mode(self, leaves: Leaves, directions: Leaves) -> tuple[Leaves, Leaves]:
        wanted, primal = self.problem.wanted, self._wide_primal

        def tangent(leaves: Leaves, directions: Leaves) -> tuple[Leaves, Leaves]:
            chosen = [jnp.asarray(leaves[i]) for i in wanted]
            return jax.jvp(lambda chosen: primal(put(leaves, wanted, chosen)), (chosen,), (directions,))

        with precise(True):
            return self._run("tangent", tangent, leaves, directions, programs=self._shared)

    def _run(
        self,
        name: str,
        function: Function,
        *arguments: Leaves,
        who: Any = "reference",
        by_steps: bool = True,
        programs: dict[Any, Function] | None = None,
    ) -> Any:
        key, programs = _key(name, arguments), self._compiled if programs is None else programs
        if key not in programs:
            try:
                compiled, _ = _guarded(self.problem, who, _compile, function, _jax(arguments))
            except NEEDS_NUMBERS as error:
                if not by_steps:
                    raise
                try:
                    return _numpy(_guarded(self.problem, who, function, *_jax(arguments)))
                except NEEDS_NUMBERS:
                    words = f"the reference, {self.problem.reference}, can't be traced by JAX: give another one"
                    raise ProblemError(f"{self.problem.name}: {words}", "reference") from error
            programs[key] = compiled
        # Differences call a program a thousand times; NumPy's arrays cost a tenth of what making JAX's would.
        return _numpy(_guarded(self.problem, who, programs[key], *arguments))

    def _in_float64(self) -> Callable[[Leaves], Leaves]:
        """The reference's output for wide leaves: with the random numbers that it draws in the caller's types, and in
        the caller's types where it can't run in others (a `jnp.float32(0)` that a scan carries)."""
        problem = self.problem
        if self.wide or not self._traces:
            return problem.primal

        def narrow(leaves: Leaves) -> Leaves:
            return problem.primal([_cast(leaf, own.dtype) for leaf, own in zip(leaves, problem.leaves, strict=True)])

        try:
            with precise(True):
                wide = jax.make_jaxpr(problem.primal)(widened(problem.leaves))
        except NEEDS_NUMBERS:
            return problem.primal
        except Exception:  # whatever a dtype of its own makes of another
            self._shared = {}
            return narrow
        if not draws(wide):
            return problem.primal
        with precise(problem.x64):
            given = jax.make_jaxpr(problem.primal)(problem.leaves)
        with precise(True):
            found = hold(given, wide)
        self.held, self._shared = found is not None, {}  # the draws are this dtype's
        return found or narrow


def _cast(leaf: Any, dtype: Any) -> Any:
    return jnp.asarray(leaf).astype(dtype) if is_inexact(leaf) else leaf


def _shapes(function: Function, problem: Problem, who: Any) -> Any:
    try:
        return _guarded(problem, who, jax.eval_shape, function, problem.leaves)
    except NEEDS_NUMBERS:
        return _guarded(problem, who, function, problem.leaves)


def _compile(function: Function, arguments: Any) -> tuple[Function, Any]:
    """The compiled program, and its jaxpr."""
    traced = jax.jit(function).trace(*arguments)
    lowered = traced.lower()
    try:
        return lowered.compile(QUICK_TO_COMPILE), traced.jaxpr
    except jax.errors.JaxRuntimeError:
        return lowered.compile(), traced.jaxpr


def _wanted(problem: Problem) -> Leaves:
    return [jnp.asarray(problem.leaves[i]) for i in problem.wanted]


def _key(name: str, given: Sequence[Leaves]) -> Any:
    return name, tuple((leaf.shape, leaf.dtype) for leaves in given for leaf in leaves)


def _guarded(problem: Problem, who: Any, function: Function, *arguments: Any) -> Any:
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
