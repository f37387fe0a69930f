"""How a cotangent depends on what stands in the middle of its backward program: the Jacobian of each place.

Backward programs are mostly linear in what they pass on. There a place's Jacobian L decides at once, and exactly, what
replacing its value v by any other w does to the cotangent: it becomes h + L (w − v). A Jacobian is a product of the
steps' own, each taken by one run of the step for each number. A loop that is run here is unrolled: each iteration has
its own v and L, and their effects add up.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.program.program import MISFITS, Body, Changes, Frame, Program, Step, Values

NUMBERS = 600  # a value of more has no Jacobian taken
COLUMNS = 60_000  # runs of a step for all Jacobians of a cotangent

Change = Callable[[Frame], list[Any]]


class Place(NamedTuple):
    """Where a value may be changed: an output of a step or, for one of its users alone, an operand.

    Attributes:
      site: the step's.
      operand: which, or None.
      output: which; 0 for an operand.
      slot: of the value.
      stretched: whether an operand is taken as large as the output that the step stretches it to.
    """

    site: int
    operand: int | None
    output: int
    slot: int
    stretched: bool = False

    def change(self, value: Callable[[Frame, Any], Any]) -> Change:
        """The step's change that puts value(frame, the value here) in its place."""

        def change(frame: Frame) -> list[Any]:
            if self.operand is not None:
                inputs = list(frame.inputs)
                x = inputs[self.operand]
                shape = frame.step.avals_out[0].shape if self.stretched else x.shape
                inputs[self.operand] = value(frame, np.broadcast_to(x, shape))
                return frame.run(inputs)
            outputs = list(frame.outputs())
            outputs[self.output] = value(frame, outputs[self.output])
            return outputs

        return change


class Instance(NamedTuple):
    """One run of a step, over numbered values.

    Attributes:
      step: None for the slices and stacks of a loop.
      run: inputs -> outputs.
      inputs, outputs: numbers of values.
      values: of the slots around it.
    """

    step: Step | None
    run: Callable[[list[Any]], list[Any]]
    inputs: list[int]
    outputs: list[int]
    values: Values


class Unrolled:
    """The run of some steps, loops unrolled, and the Jacobians of one result.

    Attributes:
      values: by number.
      at: {site: its instances}.
      by_operand: {(id of an instance, operand): the result's Jacobian}.
      by_stretched: the same by an operand as large as the output.
      by_value: {number of a value: the result's Jacobian}.
    """

    def __init__(self, program: Program, steps: Sequence[Step], values: Values, result: int, standing: Changes):
        self.program, self.standing = program, standing
        self.values: list[Any] = []
        self.instances: list[Instance] = []
        self.at: dict[int, list[Instance]] = {}
        numbers: dict[int, int] = {}
        self._expand(steps, values, numbers)
        self.by_operand: dict[tuple[int, int], np.ndarray] = {}
        self.by_stretched: dict[tuple[int, int], np.ndarray] = {}
        self.by_value: dict[int, np.ndarray] = {}
        y = values[result]
        if result in numbers and _real_size(y) <= NUMBERS:
            self.by_value[numbers[result]] = np.eye(_real_size(y))
            self._accumulate()

    def _number(self, value: Any) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _add(self, step: Step | None, run: Any, inputs: list[int], values: Values, outputs: Sequence[Any]) -> list[int]:
        numbers = [self._number(y) for y in outputs]
        instance = Instance(step, run, inputs, numbers, values)
        self.instances.append(instance)
        if step is not None:
            self.at.setdefault(step.site, []).append(instance)
        return numbers

    def _expand(self, steps: Sequence[Step], values: Values, numbers: dict[int, int]) -> None:
        for step in steps:
            for slot in step.inputs:
                if slot not in numbers:
                    numbers[slot] = self._number(values[slot])
            inputs = [numbers[slot] for slot in step.inputs]
            if step.body is not None and step.site not in self.standing:
                made = self._loop(step, step.body, inputs, values)
            else:
                own = list(values) if step.body else values  # a loop leaves its last iteration's values behind
                run = lambda given, step=step, own=own: self.program.apply(step, given, own, self.standing)  # noqa: E731
                made = self._add(step, run, inputs, values, [values[slot] for slot in step.outputs])
            numbers.update(zip(step.outputs, made, strict=True))

    def _loop(self, step: Step, body: Body, inputs: list[int], values: Values) -> list[int]:
        fixed, rest = inputs[: body.constants], inputs[body.constants :]
        carry, sliced = list(rest[: body.carried]), rest[body.carried :]
        length = step.params["length"]
        stacks: list[list[int]] = [[0] * length for _ in body.results[body.carried :]]
        for k in range(length)[::-1] if step.params["reverse"] else range(length):
            slices = []
            for x in sliced:
                cut = lambda given, k=k: [given[0][k]]  # noqa: E731
                slices += self._add(None, cut, [x], values, [self.values[x][k]])
            own = list(values)
            numbers = dict(zip(body.arguments, [*fixed, *carry, *slices], strict=True))
            for slot, number in numbers.items():
                own[slot] = self.values[number]
            self.program.fill(body.steps, own, self.standing)
            self._expand(body.steps, own, numbers)
            for slot in body.results:
                if slot not in numbers:
                    numbers[slot] = self._number(own[slot])
            carry = [numbers[slot] for slot in body.results[: body.carried]]
            for stack, slot in zip(stacks, body.results[body.carried :], strict=True):
                stack[k] = numbers[slot]
        ys = []
        for stack, slot in zip(stacks, step.outputs[body.carried :], strict=True):
            ys += (
                self._add(None, lambda given: [np.stack(given)], stack, values, [values[slot]])
                if stack
                else [self._number(values[slot])]
            )
        return [*carry, *ys]

    def _accumulate(self) -> None:
        left = COLUMNS
        for instance in reversed(self.instances):
            outer = [(k, self.by_value[n]) for k, n in enumerate(instance.outputs) if n in self.by_value]
            if not outer:
                continue
            inputs = [self.values[n] for n in instance.inputs]
            for i, (number, x) in enumerate(zip(instance.inputs, inputs, strict=True)):
                if not _numeric(x) or _real_size(x) > NUMBERS:
                    continue
                y = self.values[instance.outputs[0]]
                if _stretches(instance, x, y) and _real_size(y) <= NUMBERS:
                    wide = [*inputs[:i], np.broadcast_to(x, y.shape), *inputs[i + 1 :]]
                    of_wide, _ = self._local(instance, wide, i, [0])
                    if of_wide is not None:
                        self.by_stretched[id(instance), i] = outer[0][1] @ of_wide[0]
                local, columns = self._local(instance, inputs, i, [k for k, _ in outer])
                left -= columns
                if local is None:
                    continue
                J = np.asarray(sum(L @ local[k] for k, L in outer))
                self.by_operand[id(instance), i] = J
                self.by_value[number] = self.by_value[number] + J if number in self.by_value else J
            if left < 0:
                return

    def _local(
        self, instance: Instance, inputs: list[Any], i: int, which: list[int]
    ) -> tuple[dict[int, np.ndarray] | None, int]:
        """({output: the step's own Jacobian by operand i}, how often it ran)."""
        x = np.asarray(inputs[i])
        outputs = [self.values[n] for n in instance.outputs]
        before = {k: flat(outputs[k]) for k in which}
        name = instance.step.name if instance.step else ""
        real = x.dtype.kind == "f" and outputs[0].dtype.kind == "f"
        try:
            with np.errstate(all="ignore"):
                if name in _ELEMENTWISE and real and x.shape == outputs[0].shape:
                    # Each element of the result depends on its own alone.
                    changed = flat(instance.run([*inputs[:i], x + 1.0, *inputs[i + 1 :]])[0])
                    return {0: np.diag(changed - before[0])}, 1
                columns: dict[int, list[np.ndarray]] = {k: [] for k in which}
                for at in np.ndindex(x.shape):
                    for unit in (1.0, 1j) if x.dtype.kind == "c" else (1.0,):
                        moved = x.copy()
                        moved[at] += unit
                        new = instance.run([*inputs[:i], moved, *inputs[i + 1 :]])
                        for k in which:
                            columns[k].append(flat(new[k]) - before[k])
        except MISFITS:
            return None, 1
        empty = {k: np.zeros((before[k].size, 0)) for k in which}
        return {k: np.stack(columns[k], axis=1) if columns[k] else empty[k] for k in which}, x.size


_ELEMENTWISE = frozenset(
    "mul div add add_any sub neg conj real imag convert_element_type select_n return stop_gradient".split()  # noqa: SIM905
)


def flat(array: Any) -> np.ndarray:
    """As a vector of real numbers."""
    array = np.ascontiguousarray(array)
    return array.reshape(-1).view(np.float64) if array.dtype.kind == "c" else array.reshape(-1).astype(np.float64)


def _numeric(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "fc"


def _stretches(instance: Instance, x: Any, y: Any) -> bool:
    """Whether an operation on two arrays stretches this one."""
    binary = instance.step is not None and instance.step.name in ("add", "sub", "mul", "div")
    return binary and y.dtype == x.dtype and 0 < x.ndim == y.ndim and x.shape != y.shape


def _real_size(x: Any) -> int:
    return int(np.size(x)) * (2 if x.dtype.kind == "c" else 1)
