"""A function as a list of steps, run one by one in NumPy, with some of them changed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import jaxprs_in_params

from handgrad.crosscheck.errors.program.source import Line
from handgrad.crosscheck.numerics.interpret import cast, evaluate

# What a change raises that doesn't fit the shapes or dtypes around it.
MISFITS = (ValueError, TypeError, IndexError, OverflowError, jax.errors.JaxRuntimeError)

Values = list[Any]  # of every slot


class Body(NamedTuple):
    """A scan's body: its steps, and the slots of its arguments and results. The first `constants` arguments stay as
    they are, the next `carried` go from one iteration to the next, the others are sliced."""

    steps: list["Step"]
    arguments: list[int]
    results: list[int]
    constants: int
    carried: int


class Return(NamedTuple):
    """The primitive of a cotangent's last step, which hands it over as it is."""

    name: str = "return"
    multiple_results: bool = False

    def bind(self, x: Any) -> Any:
        """x."""
        return x


class Step(NamedTuple):
    """One equation.

    Attributes:
      site: its number in the order of tracing, the same at every shape of the arguments.
      primitive, params: JAX's.
      inputs, outputs: slots that it reads and writes.
      avals_in, avals_out: shape and dtype of each.
      line: in the user's source, or None.
      traceback: JAX's own record of it.
      body: of a scan that is run here; else None.
    """

    site: int
    primitive: Any
    params: dict[str, Any]
    inputs: list[int]
    outputs: list[int]
    avals_in: list[Any]
    avals_out: list[Any]
    line: Line | None = None
    traceback: Any = None
    body: Body | None = None

    @property
    def name(self) -> str:
        """The primitive's."""
        return self.primitive.name

    @property
    def where(self) -> str:
        """ "softmax.py:63", or its number."""
        return str(self.line or f"equation {self.site}")

    @property
    def weight(self) -> int:
        """How many steps it comes to."""
        return 1 if self.body is None else self.params["length"] * sum(step.weight for step in self.body.steps)

    def run(self, inputs: Sequence[Any], **changed: Any) -> list[Any]:
        """The outputs for these inputs, with some parameters changed."""
        # A program inside the step has its own shapes. JAX would run it with others, and XLA log an error.
        if any(jaxprs_in_params(self.params)) and [x.shape for x in inputs] != [aval.shape for aval in self.avals_in]:
            raise ValueError(f"{self.name} takes other shapes")
        params = {**self.params, **changed} if changed else self.params
        return evaluate(self.primitive, inputs, params, [aval.dtype for aval in self.avals_out])

    def all(self) -> Iterator["Step"]:
        """This step, and those of its body."""
        yield self
        for step in self.body.steps if self.body else ():
            yield from step.all()


class Frame(NamedTuple):
    """A step about to run: what a change to it may look at."""

    step: Step
    inputs: list[Any]
    values: Values
    program: "Program"

    def outputs(self) -> list[Any]:
        """What the step gives unchanged."""
        return self.program.run_step(self.step, self.inputs, self.values, {})

    def run(self, inputs: Sequence[Any], **changed: Any) -> list[Any]:
        """What the step gives for other inputs, or with some parameters changed."""
        if self.step.body is None:
            return self.step.run(inputs, **changed)
        step = self.step._replace(params={**self.step.params, **changed})
        return self.program.run_step(step, inputs, self.values, {})

    @property
    def xp(self) -> Any:
        """NumPy; jax.numpy while JAX traces."""
        return jnp if any(isinstance(x, Tracer) for x in self.inputs) else np


Changes = Mapping[int, Callable[[Frame], list[Any]]]  # {site: what the step there gives instead}
NONE: Mapping[int, Any] = MappingProxyType({})


class Program(NamedTuple):
    """A traced function as a list of steps over numbered slots.

    Attributes:
      steps: in order; each reads and writes slots.
      constants: {slot: value} of literals and closed-over arrays.
      leaves, dYs: the slots of the arguments.
      Ys, cotangents: the slots of the results.
      slots: how many there are.
      shapes: of the arguments, leaves and dYs.
      nothing: of each value that the backward function returns, whether it is None.
    """

    steps: list[Step]
    constants: dict[int, Any]
    leaves: list[int]
    dYs: list[int]
    Ys: list[int]
    cotangents: list[int]
    slots: int
    shapes: list[tuple[int, ...]]
    nothing: Sequence[bool] = ()

    @property
    def sites(self) -> int:
        """One more than the last site."""
        return self.steps[-1].site + 1 if self.steps else 0

    @property
    def nbytes(self) -> int:
        """Of everything that it computes, all of which is kept."""
        avals = [aval for step in self.steps for one in step.all() for aval in one.avals_out]
        return sum(math.prod(aval.shape) * aval.dtype.itemsize for aval in avals)

    def backward(self) -> tuple[list[Step], list[Step]]:
        """(forward, backward): the steps that the Ys need, and those that only the cotangents need."""
        forward = self.needed(self.Ys)
        sites = {step.site for step in forward}
        return forward, [step for step in self.needed(self.cotangents) if step.site not in sites]

    def needed(self, results: Sequence[int]) -> list[Step]:
        """The steps that these slots need."""
        needed, found = set(results), []
        for step in reversed(self.steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
                found.append(step)
        return found[::-1]

    def run(
        self, leaves: Sequence[Any], dYs: Sequence[Any], steps: Sequence[Step] | None = None, changes: Changes = NONE
    ) -> Values:
        """The value of every slot that the steps (all of them) fill; None in the others."""
        values: Values = [None] * self.slots
        for slot, value in self.constants.items():
            values[slot] = value
        for slot, value in zip([*self.leaves, *self.dYs], [*leaves, *dYs], strict=True):
            values[slot] = value
        self.fill(self.steps if steps is None else steps, values, changes)
        return values

    def rerun(
        self, steps: Sequence[Step], values: Values, changes: Changes, changed: Mapping[int, Any] = NONE
    ) -> Values:
        """The values after some steps, and some slots, have changed: what follows from them is run again."""
        values = list(values)
        dirty = set(changed)
        for slot, value in changed.items():
            values[slot] = value
        for step in steps:
            touched = (
                not changes.keys().isdisjoint(one.site for one in step.all()) if step.body else step.site in changes
            )
            if touched or not dirty.isdisjoint(step.inputs):
                self.fill([step], values, changes)
                dirty.update(step.outputs)
        return values

    def fill(self, steps: Sequence[Step], values: Values, changes: Changes) -> None:
        """Run steps one by one, their outputs put among the values."""
        for step in steps:
            outputs = self.apply(step, [values[slot] for slot in step.inputs], values, changes)
            for slot, value in zip(step.outputs, outputs, strict=True):
                values[slot] = value

    def apply(self, step: Step, inputs: Sequence[Any], values: Values, changes: Changes) -> list[Any]:
        """One step's outputs, changed where there is a change for it."""
        change = changes.get(step.site)
        if change is None:
            return self.run_step(step, inputs, values, changes)
        outputs = change(Frame(step, list(inputs), values, self))
        return [_like(y, aval, step.name) for y, aval in zip(outputs, step.avals_out, strict=True)]

    def run_step(self, step: Step, inputs: Sequence[Any], values: Values, changes: Changes) -> list[Any]:
        """One step's outputs, as the changes to its body have it."""
        return step.run(inputs) if step.body is None else self._loop(step, step.body, inputs, values, changes)

    def _loop(self, step: Step, body: Body, inputs: Sequence[Any], values: Values, changes: Changes) -> list[Any]:
        fixed, rest = inputs[: body.constants], inputs[body.constants :]
        carry, sliced = list(rest[: body.carried]), rest[body.carried :]
        length = step.params["length"]
        order = range(length)[::-1] if step.params["reverse"] else range(length)
        stacks: list[list[Any]] = [[None] * length for _ in body.results[body.carried :]]
        for k in order:
            for slot, value in zip(body.arguments, [*fixed, *carry, *(x[k] for x in sliced)], strict=True):
                values[slot] = value
            self.fill(body.steps, values, changes)
            results = [values[slot] for slot in body.results]
            carry = results[: body.carried]
            for stack, y in zip(stacks, results[body.carried :], strict=True):
                stack[k] = y
        stack = jnp.stack if any(isinstance(x, Tracer) for x in inputs) else np.stack
        avals = step.avals_out[body.carried :]
        return [*carry, *(stack(ys) if ys else np.zeros(a.shape, a.dtype) for ys, a in zip(stacks, avals, strict=True))]


def _like(y: Any, aval: Any, name: str) -> Any:
    """A changed output in the dtype of the one that it replaces, and stretched to its shape."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended) or name == "return":
        return y
    y = y if name == "convert_element_type" else cast(y, aval.dtype)
    shape = y.shape
    if shape == aval.shape or y.ndim > len(aval.shape):
        return y
    if not all(n in (1, m) for n, m in zip(shape[::-1], aval.shape[::-1], strict=False)):
        return y
    return (jnp if isinstance(y, Tracer) else np).broadcast_to(y, aval.shape)
