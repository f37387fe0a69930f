"""A problem's functions, compiled once and run on NumPy arrays, each in the types that it belongs to."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.subject.arguments import Function, Leaves, ProblemError, is_inexact, widened
from handgrad.crosscheck.subject.compiling import NEEDS_NUMBERS, as_numpy, compiled_program, on_device, precise
from handgrad.crosscheck.subject.guarded import check_outputs, guarded, output_shapes, runs_by_steps
from handgrad.crosscheck.subject.held import primitives
from handgrad.crosscheck.subject.problem import Problem, pullback, pushforward
from handgrad.crosscheck.subject.stepwise import interpreted, stepwise
from handgrad.crosscheck.subject.wide import in_float64
from handgrad.crosscheck.subject.words import keystr

T = TypeVar("T")
APART = 2**18  # numbers, in and out, above which running costs more than compiling: a program for each function


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
    Raises:
      ProblemError: the forward pass and the reference return other structures or shapes; either raises.
    """

    needs_numbers = NEEDS_NUMBERS

    def __init__(self, problem: Problem, shared: dict[Any, Function] | None = None):
        self.problem = problem
        self.compiles, self.calls_back, self.without_autodiff = True, False, ""
        self._pulled = pullback(problem.primal, problem.wanted)
        self._compiled: dict[Any, Function] = {}
        self._jaxprs: dict[Any, Any] = {}
        self._last: tuple[Leaves, Leaves, Both] | None = None
        self._has_forward_mode = True
        with precise(problem.x64):
            mine, _ = output_shapes(problem.forward, problem, "hand")
            theirs, traced = output_shapes(problem.target, problem, "reference")
            self._traces = traced or runs_by_steps(problem)
            if not self._traces:
                self.without_autodiff = "JAX can't trace the reference"
            check_outputs(problem, mine, theirs)
            flat = [(keystr(path), y) for path, y in jax.tree.leaves_with_path(mine) if is_inexact(y)]
            self.output_names = [name or "Y" for name, _ in flat]
            self.outputs = [jax.ShapeDtypeStruct(jnp.shape(y), jnp.result_type(y)) for _, y in flat]
        self._apart = sum(math.prod(np.shape(a)) for a in [*problem.leaves, *self.outputs]) > APART
        self.wide = all(leaf.dtype in (np.float64, np.complex128) for leaf in problem.leaves if is_inexact(leaf))
        narrow = self._traces and not self.wide
        self._wide_primal, shareable = in_float64(problem) if narrow else (problem.primal, True)
        self._shared = shared if shareable and shared is not None else {}

    def in_numpy_first(self, check: Callable[[bool], T], right: Callable[[T], bool]) -> T:
        """What a check finds of programs that run once: in NumPy, where compiling them would cost more than running.

        What isn't right by NumPy is looked at again as JAX runs it, and so is what can't run there.

        Args:
          check: takes `in_numpy`, for `both` and `by_hand_eager`.
          right: whether that is settled by what `check` returned.
        """
        if not self._apart:
            try:
                found = check(True)
                if right(found):
                    return found
            except Exception:  # JAX will say it again
                pass
        return check(False)

    def both(self, leaves: Leaves, dYs: Leaves, in_numpy: bool) -> Both:
        """`by_hand` and `by_autodiff`, at shapes that no other program has."""
        if not in_numpy:
            return Both(autodiff=self.by_autodiff(leaves, dYs), hand=self.by_hand(leaves, dYs))
        with precise(self.problem.x64):
            return as_numpy(interpreted(self._pair, leaves, dYs))

    def by_hand(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """(Ys, cotangents) of the function under test, in its own dtype."""
        if self._apart or not self.compiles or self.without_autodiff:
            return self._by_hand_alone(leaves, dYs)
        return self._compiled_pair(leaves, dYs).hand

    def by_hand_eager(self, leaves: Leaves, dYs: Leaves, in_numpy: bool = False) -> tuple[Leaves, Leaves]:
        """The same, step by step."""
        with precise(self.problem.x64):
            given = on_device((leaves, dYs))
            with stepwise(in_numpy):
                return as_numpy(guarded(self.problem, "hand", self.problem.run, *given))

    def by_autodiff(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """(Ys, cotangents) by jax.vjp of the reference, in the given dtype."""
        if self._apart or not self.compiles:
            return self._run("pullback", self._pulled, leaves, dYs, wide=self.wide)
        return self._compiled_pair(leaves, dYs).autodiff

    def in_float64(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """The same in float64 (complex128)."""
        if self.wide:
            return self.by_autodiff(leaves, dYs)
        pulled = pullback(self._wide_primal, self.problem.wanted)
        return self._run("pullback", pulled, widened(leaves), widened(dYs), wide=True)

    def primal(self, leaves: Leaves) -> Leaves:
        """The reference's output in float64; the leaves are wide already."""
        if not self._traces:
            with precise(True):
                return as_numpy(guarded(self.problem, "reference", self.problem.primal, leaves))
        if self._has_forward_mode and not self._apart:
            still = [np.zeros_like(leaves[i]) for i in self.problem.wanted]
            try:
                return self._forward_mode(leaves, still)[0]
            except (ProblemError, TypeError):
                self._has_forward_mode = False
        return self._run("primal", self._wide_primal, leaves, wide=True)

    def eager_primal(self, leaves: Leaves) -> Leaves:
        """The same step by step, in whatever dtype it is given: complex numbers for the complex step."""
        with precise(True):
            return as_numpy(self.problem.primal(on_device(leaves)))

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
            return jax.eval_shape(self._pair, leaves, dYs)

    def output_shapes(self, leaves: Leaves) -> Leaves:
        """The shapes and dtypes of the reference's output."""
        with precise(self.problem.x64):
            return guarded(self.problem, "reference", jax.eval_shape, self.problem.primal, leaves)

    def _pair(self, leaves: Leaves, dYs: Leaves) -> Both:
        theirs = guarded(self.problem, "reference", self._pulled, leaves, dYs)
        return Both(guarded(self.problem, "hand", self.problem.run, leaves, dYs), theirs)

    def _compiled_pair(self, leaves: Leaves, dYs: Leaves) -> Both:
        """Both gradients by one program; a second call with the same lists costs nothing."""
        if self._last is not None and self._last[0] is leaves and self._last[1] is dYs:
            return self._last[2]
        problem = self.problem
        with precise(problem.x64):
            key = _key("both", (leaves, dYs))
            if key not in self._compiled:
                try:
                    self._compiled[key], jaxpr = compiled_program(self._pair, on_device((leaves, dYs)))
                    self.calls_back |= any("callback" in name for name in primitives(jaxpr))
                    if self.wide:  # in another dtype this is the truth
                        run = self._compiled[key]
                        self._shared[_key("pullback", (leaves, dYs))] = lambda *given: run(*given).autodiff
                except NEEDS_NUMBERS:
                    found = Both(self._by_hand_alone(leaves, dYs), self._run("pullback", self._pulled, leaves, dYs))
                    if self.compiles:  # then it is the reference: each by a program of its own from here
                        self._apart = True
                    return found
            found = as_numpy(guarded(problem, "hand", self._compiled[key], leaves, dYs))
        self._last = (leaves, dYs, found)
        return found

    def _by_hand_alone(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        if self.compiles:
            try:
                return self._run("run", self.problem.run, leaves, dYs, who="hand")
            except NEEDS_NUMBERS:
                self.compiles = False
        # NumPy's own functions get NumPy's own arrays.
        with precise(self.problem.x64):
            given = on_device((leaves, dYs)) if self._traces else (leaves, dYs)
            return as_numpy(guarded(self.problem, "hand", self.problem.run, *given))

    def _forward_mode(self, leaves: Leaves, directions: Leaves) -> tuple[Leaves, Leaves]:
        pushed = pushforward(self._wide_primal, self.problem.wanted)
        return self._run("tangent", pushed, leaves, directions, wide=True)

    def _run(self, name: str, function: Function, *given: Leaves, who: Any = "reference", wide: bool = False) -> Any:
        """A program's results; in float64 it is shared with other dtypes' checks."""
        key, programs = _key(name, given), self._shared if wide else self._compiled
        with precise(wide or self.problem.x64):
            if key not in programs:
                try:
                    programs[key], _ = guarded(self.problem, who, compiled_program, function, on_device(given))
                except NEEDS_NUMBERS as error:
                    if who == "hand":
                        raise
                    try:
                        return as_numpy(guarded(self.problem, who, function, *on_device(given)))
                    except NEEDS_NUMBERS:
                        words = f"the reference, {self.problem.reference}, can't be traced by JAX: give another one"
                        raise ProblemError(f"{self.problem.name}: {words}", "reference") from error
            # Differences call a program a thousand times; NumPy's arrays cost a tenth of what making JAX's would.
            return as_numpy(guarded(self.problem, who, programs[key], *given))


def _key(name: str, given: Sequence[Leaves]) -> Any:
    return name, tuple((leaf.shape, leaf.dtype) for leaves in given for leaf in leaves)
