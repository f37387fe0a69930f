"""The backward program itself broken on purpose: mutation testing on its jaxpr, one equation at a time."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from handgrad.crosscheck.errors.gradient import is_gradient, wide
from handgrad.crosscheck.errors.mutants import Mutant, same_array
from handgrad.crosscheck.errors.mutation.faults import Fault, Step, cotangent_faults, faults

# Calls that do nothing but call: their equations join the caller's.
CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "checkpoint",
    "remat",
    "remat2",
}

Values = list[Any]


class Program(NamedTuple):
    """A traced function as a list of steps over numbered slots.

    Attributes:
      steps: in order; each reads and writes slots.
      constants: {slot: value} of literals and closed-over arrays.
      leaves, dYs: the slots of the arguments.
      Ys, cotangents: the slots of the results.
      slots: how many there are.
    """

    steps: list[Step]
    constants: dict[int, Any]
    leaves: list[int]
    dYs: list[int]
    Ys: list[int]
    cotangents: list[int]
    slots: int

    def backward(self) -> tuple[list[Step], list[Step]]:
        """(forward, backward): the steps that the Ys need, and those that only the cotangents need."""
        for_ys, for_cotangents = self._needed(self.Ys), self._needed(self.cotangents)
        forward = [step for step in self.steps if for_ys.intersection(step.outputs)]
        rest = [step for step in self.steps if not for_ys.intersection(step.outputs)]
        return forward, [step for step in rest if for_cotangents.intersection(step.outputs)]

    def _needed(self, results: list[int]) -> set[int]:
        needed = set(results)
        for step in reversed(self.steps):
            if needed.intersection(step.outputs):
                needed.update(step.inputs)
        return needed


class Mutation(NamedTuple):
    """A change to the backward part: `change` gives the new values of some slots from all the right ones."""

    kind: str
    words: str
    change: Callable[[Values], dict[int, Any]]


def program_mutants(
    hand: Callable[..., Any],
    leaves: Sequence[np.ndarray],
    dYs_draws: Sequence[Sequence[np.ndarray]],
    names: Sequence[str],
    stale_leaves: Sequence[np.ndarray],
    limit: int,
    seed: int,
) -> Iterator[Mutant]:
    """Mutants of the backward program: in each, one equation of its jaxpr computes something else.

    The program is run equation by equation, and of a mutant only what comes after the change: nothing is compiled for
    a mutant but what it has in an equation of its own. A loop (scan, while) is one equation: mutants change what goes
    in, what comes out and a scan's direction, and not its body. A mutant that leaves all numbers as they were is
    marked equivalent, by comparison with the program run in this same way.

    Args:
      hand: (leaves, dYs) -> (Ys, cotangents), flat lists of arrays. What the Ys need is its forward part; what
        only the cotangents need is its backward part, where the mutants are.
      leaves: every array argument.
      dYs_draws: [draw][output].
      names: of the cotangents, in order.
      stale_leaves: other values for `leaves`, which stale residuals come from.
      limit: at most this many mutants, drawn evenly over the kinds.
      seed: of that draw.
    Raises:
      ValueError: not as many names as cotangents.
    """
    # Every draw, every mutant: the same settings as in the check itself.
    with jax.default_matmul_precision("highest"):
        program = trace(hand, leaves, dYs_draws[0])
        if len(names) != len(program.cotangents):
            raise ValueError(f"{len(names)} names for {len(program.cotangents)} cotangents")
        forward, backward = program.backward()
        stale = _run(program, forward, stale_leaves, dYs_draws[0])
        right = [_run(program, forward + backward, leaves, dYs) for dYs in dYs_draws]
    expected = [_read(program.cotangents, values) for values in right]
    for mutation in _choose(list(_mutations(program, forward, backward, right[0], stale)), limit, seed):
        found = []
        with jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
            for values in right:
                changed = _rerun(backward, values, mutation.change(values))
                found.append(_read(program.cotangents, [changed.get(i, v) for i, v in enumerate(values)]))
        pairs = [pair for both in zip(found, expected, strict=True) for pair in enumerate(zip(*both, strict=True))]
        wrong = {position for position, (one, other) in pairs if not same_array(one, other)}
        leaf = names[min(wrong)] if len(wrong) == 1 else ""
        yield Mutant(mutation.kind, leaf, mutation.words, found, equivalent=not wrong)


def trace(hand: Callable[..., Any], leaves: Sequence[Any], dYs: Sequence[Any]) -> Program:
    """`hand` as a program without nested calls."""
    closed, shapes = jax.make_jaxpr(hand, return_shape=True)(list(leaves), list(dYs))
    n_outputs = len(jax.tree.leaves(shapes[0]))
    steps: list[Step] = []
    constants: dict[int, Any] = {}
    count = 0

    def new() -> int:
        nonlocal count
        count += 1
        return count - 1

    def inline(jaxpr: Any, consts: Sequence[int], arguments: Sequence[int], caller: str = "") -> list[int]:
        slot_of: dict[Any, int] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

        def read(atom: Any) -> int:
            if not isinstance(atom, Literal):
                return slot_of[atom]
            slot = new()
            aval: Any = atom.aval
            constants[slot] = jnp.asarray(atom.val, aval.dtype)
            return slot

        for equation in jaxpr.eqns:
            inputs = [read(atom) for atom in equation.invars]
            where = _source(equation) or caller  # what JAX has traced before, as jnp.where, has no line of its own
            called = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
            if equation.primitive.name in CALLS and called is not None:
                values = getattr(called, "consts", [])
                slots = [new() for _ in values]
                constants.update(zip(slots, values, strict=True))
                outputs = inline(getattr(called, "jaxpr", called), slots, inputs, where)
            else:
                outputs = [new() for _ in equation.outvars]
                avals = ([atom.aval for atom in equation.invars], [atom.aval for atom in equation.outvars])
                where = where or f"equation {len(steps)}"
                steps.append(Step(equation.primitive, equation.params, inputs, outputs, *avals, where))
            slot_of.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    consts = [new() for _ in closed.consts]
    constants.update(zip(consts, closed.consts, strict=True))
    arguments = [new() for _ in closed.jaxpr.invars]
    results = inline(closed.jaxpr, consts, arguments)
    parts = (arguments[: len(leaves)], arguments[len(leaves) :], results[:n_outputs], results[n_outputs:])
    return Program(steps, constants, *parts, count)


def _source(equation: Any) -> str:
    """ "softmax.py:63": the innermost line that is not JAX's own; "" where JAX doesn't say."""
    try:
        frames = traceback.extract_tb(equation.source_info.traceback.as_python_traceback())
    except AttributeError:  # not part of JAX's promises
        return ""
    inside = str(Path(str(jax.__file__)).parent)
    lines = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if not frame.filename.startswith(inside)]
    return lines[-1] if lines else ""


def _run(program: Program, steps: list[Step], leaves: Sequence[Any], dYs: Sequence[Any]) -> Values:
    """The value of every slot that the steps fill; None in the others."""
    values: Values = [None] * program.slots
    for slot, value in program.constants.items():
        values[slot] = value
    for slot, value in zip([*program.leaves, *program.dYs], [*leaves, *dYs], strict=True):
        values[slot] = jnp.asarray(value)
    for step in steps:
        for slot, value in zip(step.outputs, step.run([values[i] for i in step.inputs]), strict=True):
            values[slot] = value
    return values


def _rerun(backward: list[Step], values: Values, changed: dict[int, Any]) -> dict[int, Any]:
    """What becomes of the other slots when some are changed."""
    changed = dict(changed)
    for step in backward:
        # A step whose outputs are changed is the mutated one: nothing it reads is.
        if any(i in changed for i in step.inputs):
            outputs = step.run([changed.get(i, values[i]) for i in step.inputs])
            changed.update(zip(step.outputs, outputs, strict=True))
    return changed


def _read(slots: list[int], values: Values) -> list[np.ndarray]:
    return [np.asarray(values[slot]) for slot in slots]


def _mutations(
    program: Program, forward: list[Step], backward: list[Step], right: Values, stale: Values
) -> Iterator[Mutation]:
    for step in backward:
        for fault in faults(step):
            yield Mutation(fault.kind, f"{step.where}, {step.primitive.name}: {fault.words}", _at(step, fault))
    yield from _stale(program, forward, backward, stale)
    for slot, value in program.constants.items():
        users = [step for step in backward if slot in step.inputs]
        if users and is_gradient(value) and np.all(np.isfinite(value)) and np.any(np.asarray(value) != 0):
            # More than the rounding of the dtype explains.
            factor = 1.01 if jnp.finfo(value.dtype).eps < 1e-4 else 1.25
            off = (wide(np.asarray(value)) * factor).astype(value.dtype)
            words = f"{users[0].where}, {users[0].primitive.name}: constant × {factor:g}"
            yield Mutation("constant", words, lambda values, slot=slot, off=off: {slot: off})
    usable = [slot for slot in program.dYs if is_gradient(right[slot])]
    for kind, words, change in cotangent_faults([right[slot] for slot in usable]):
        yield Mutation(kind, words, lambda values, change=change: {slot: change(values[slot]) for slot in usable})


def _at(step: Step, fault: Fault) -> Callable[[Values], dict[int, Any]]:
    def change(values: Values) -> dict[int, Any]:
        outputs = fault.outputs([values[i] for i in step.inputs], [values[i] for i in step.outputs])
        # Faults may be computed in more precision than the step has.
        return {
            slot: _as(output, aval) for slot, output, aval in zip(step.outputs, outputs, step.avals_out, strict=True)
        }

    return change


def _as(output: Any, aval: Any) -> Any:
    if output.dtype == aval.dtype and output.shape == aval.shape:
        return output
    if np.iscomplexobj(output) and not jnp.issubdtype(aval.dtype, jnp.complexfloating):
        output = np.real(output)
    return np.broadcast_to(output, aval.shape).astype(aval.dtype)


def _stale(program: Program, forward: list[Step], backward: list[Step], stale: Values) -> Iterator[Mutation]:
    """Residuals, arguments among them, as they were for other arguments: everywhere in the backward part, or once."""
    makers = {slot: f"{step.primitive.name} of {step.where}" for step in forward for slot in step.outputs}
    makers.update({slot: f"argument {i}" for i, slot in enumerate(program.leaves)})
    used = {slot for step in backward for slot in step.inputs} | set(program.cotangents)
    for slot in sorted(used & set(makers)):
        old = stale[slot]
        yield Mutation("stale residual", f"stale {makers[slot]}", lambda values, slot=slot, old=old: {slot: old})
        users = [step for step in backward if slot in step.inputs]
        for step in users if len(users) > 1 else []:
            words = f"{step.where}, {step.primitive.name}: stale {makers[slot]} here alone"

            def change(values: Values, step: Step = step, slot: int = slot, old: Any = old) -> dict[int, Any]:
                inputs = [old if i == slot else values[i] for i in step.inputs]
                return dict(zip(step.outputs, step.run(inputs), strict=True))

            yield Mutation("stale operand", words, change)


def _choose(mutations: list[Mutation], limit: int, seed: int) -> list[Mutation]:
    """At most `limit` of them, evenly over the kinds, in an order that the seed decides."""
    kinds: dict[str, list[Mutation]] = {}
    for i in np.random.default_rng(seed).permutation(len(mutations)):
        kinds.setdefault(mutations[i].kind, []).append(mutations[i])
    rounds = max(map(len, kinds.values()), default=0)
    return [of_kind[turn] for turn in range(rounds) for of_kind in kinds.values() if turn < len(of_kind)][:limit]
