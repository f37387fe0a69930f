"""The backward program itself broken on purpose: mutation testing on its jaxpr, one step at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.errors.gradient import is_gradient, wide
from handgrad.crosscheck.errors.mutants import Mutant, same_array
from handgrad.crosscheck.errors.program.edits import edits, gross
from handgrad.crosscheck.errors.program.program import MISFITS, Frame, Program, Step, Values
from handgrad.crosscheck.errors.program.tracing import trace


class Mutation(NamedTuple):
    """A change to the backward part: other values of some slots, or other outputs of the steps at some sites."""

    kind: str
    words: str
    slots: Callable[[Values], dict[int, Any]] = lambda values: {}
    steps: dict[int, Callable[[Frame], list[Any]]] = {}  # noqa: RUF012 (never changed)


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

    The program is run step by step in NumPy, and of a mutant only what comes after the change: nothing is compiled.
    The body of a short scan is part of the program; a `while` is one step. A mutant that leaves all numbers as they
    were is marked equivalent, by comparison with the program run in this same way.

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
        stale = program.run(stale_leaves, dYs_draws[0], forward)
        right = [program.run(leaves, dYs, forward + backward) for dYs in dYs_draws]
    expected = [_read(program.cotangents, values) for values in right]
    for mutation in _choose(list(_mutations(program, forward, backward, right[0], stale)), limit, seed):
        try:
            with jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
                changed = [program.rerun(backward, values, mutation.steps, mutation.slots(values)) for values in right]
        except MISFITS:
            continue
        found = [_read(program.cotangents, values) for values in changed]
        pairs = [pair for both in zip(found, expected, strict=True) for pair in enumerate(zip(*both, strict=True))]
        wrong = {position for position, (one, other) in pairs if not same_array(one, other)}
        leaf = names[min(wrong)] if len(wrong) == 1 else ""
        yield Mutant(mutation.kind, leaf, mutation.words, found, equivalent=not wrong)


def _read(slots: list[int], values: Values) -> list[np.ndarray]:
    return [np.asarray(values[slot]) for slot in slots]


def _mutations(
    program: Program, forward: list[Step], backward: list[Step], right: Values, stale: Values
) -> Iterator[Mutation]:
    for step in (one for outer in backward for one in outer.all()):
        for edit in (*edits(step), *(gross(step) if step.name != "return" else ())):
            if edit.kind != "rounded":  # of another dtype, and no error for that
                yield Mutation(edit.kind, f"{step.where}, {step.name}: {edit.words}", steps={step.site: edit.change})
    yield from _stale(program, forward, backward, stale)
    for slot, value in program.constants.items():
        users = [step for step in backward if slot in step.inputs]
        if users and is_gradient(value) and np.all(np.isfinite(value)) and np.any(value != 0):
            # More than the rounding of the dtype explains.
            factor = 1.01 if jnp.finfo(value.dtype).eps < 1e-4 else 1.25
            off = (wide(value) * factor).astype(value.dtype)
            words = f"{users[0].where}, {users[0].name}: constant × {factor:g}"
            yield Mutation("constant", words, lambda values, slot=slot, off=off: {slot: off})
    usable = [slot for slot in program.dYs if is_gradient(right[slot])]
    for kind, words, change in _of_cotangents([right[slot] for slot in usable]):
        yield Mutation(kind, words, lambda values, change=change: {slot: change(values[slot]) for slot in usable})


def _of_cotangents(dYs: Sequence[Any]) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    """What a backward program could take for its cotangents: (kind, words, dY -> dY)."""
    if not dYs:
        return

    def exactly(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
        return lambda dY: change(wide(dY)).astype(dY.dtype)

    yield "ignores the cotangent", "dY: ones instead", np.ones_like
    yield "not linear", "dY: squared", exactly(lambda dY: dY**2)
    yield "not linear", "dY: its absolute value", exactly(lambda dY: np.abs(dY))
    yield "not linear", "dY: clipped to ±½", exactly(lambda dY: dY * np.minimum(1, 0.5 / np.abs(dY)))
    if any(jnp.issubdtype(dY.dtype, jnp.complexfloating) for dY in dYs):
        yield "conjugate", "dY: its conjugate", np.conj
    if any(dY.ndim > 0 and dY.shape[0] > 1 for dY in dYs):
        yield "first example alone", "dY: example 0 alone", lambda dY: _rows(dY, slice(0, 1))
        yield "last example dropped", "dY: without the last example", lambda dY: _rows(dY, slice(0, -1))
        yield "examples permuted", "dY: examples in reverse", lambda dY: dY[::-1] if dY.ndim else dY


def _rows(dY: Any, kept: slice) -> Any:
    """dY with zeros outside of these rows."""
    if not dY.ndim:
        return dY
    found = np.zeros_like(dY)
    found[kept] = dY[kept]
    return found


def _stale(program: Program, forward: list[Step], backward: list[Step], stale: Values) -> Iterator[Mutation]:
    """Residuals, arguments among them, as they were for other arguments: everywhere in the backward part, or once."""
    makers = {slot: f"{step.name} of {step.where}" for step in forward for slot in step.outputs}
    makers.update({slot: f"argument {i}" for i, slot in enumerate(program.leaves)})
    used = {slot for step in backward for slot in step.inputs} | set(program.cotangents)
    for slot in sorted(used & set(makers)):
        old = stale[slot]
        yield Mutation("stale residual", f"stale {makers[slot]}", lambda values, slot=slot, old=old: {slot: old})
        users = [step for step in backward if slot in step.inputs]
        for step in users if len(users) > 1 else []:
            words = f"{step.where}, {step.name}: stale {makers[slot]} here alone"

            def change(frame: Frame, slot: int = slot, old: Any = old) -> list[Any]:
                slots = zip(frame.step.inputs, frame.inputs, strict=True)
                return frame.run([old if i == slot else x for i, x in slots])

            yield Mutation("stale operand", words, steps={step.site: change})


def _choose(mutations: list[Mutation], limit: int, seed: int) -> list[Mutation]:
    """At most `limit` of them, evenly over the kinds, in an order that the seed decides."""
    kinds: dict[str, list[Mutation]] = {}
    for i in np.random.default_rng(seed).permutation(len(mutations)):
        kinds.setdefault(mutations[i].kind, []).append(mutations[i])
    rounds = max(map(len, kinds.values()), default=0)
    return [of_kind[turn] for turn in range(rounds) for of_kind in kinds.values() if turn < len(of_kind)][:limit]
