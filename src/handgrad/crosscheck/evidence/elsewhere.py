"""Contracts at other inputs: a second one, one with a NaN, a batch of one and an empty one."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.evidence import Evidence, LeafEvidence
from handgrad.crosscheck.evidence.noise import Way, neighbors
from handgrad.crosscheck.report.report import Contract
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, is_inexact, largest, put, wide
from handgrad.crosscheck.subject.messages import in_short
from handgrad.crosscheck.subject.programs import Programs

HALF = "half a batch"


def passes(contract: Contract) -> bool:
    """Whether it is kept."""
    return contract.status == "PASS"


def second_input(evidence: Evidence) -> Contract:
    """At other numbers of the same shapes it is still the gradient: nothing is kept from the call before.

    A compiled program keeps nothing, so that it is what the function is compared with when it runs step by step. Of a
    function that can't be compiled only the reference can tell: at other inputs of three kinds, since those of one may
    not satisfy what its author assumes of them (a symmetric matrix, a sum of 1, an order).
    """
    name, programs = "no state kept between calls", evidence.programs
    dYs, first = evidence.dYs[0], evidence.hand[0]
    if programs.compiles and not programs.calls_back:
        leaves = [_scaled(leaf, 7 / 8) for leaf in evidence.leaves]
        compiled = programs.by_hand(leaves, dYs)[1]

        def step_by_step(in_numpy: bool) -> Contract:
            try:
                programs.by_hand_eager(evidence.leaves, dYs, in_numpy)
                eager = programs.by_hand_eager(leaves, dYs, in_numpy)[1]
            except (ProblemError, *programs.needs_numbers) as error:
                return Contract(name, "SKIPPED", f"step by step it raises: {in_short(error.__cause__ or error)}")
            where = differs(evidence.wanted, eager, compiled, first)
            if where and not programs.without_autodiff:  # these numbers may be worse conditioned than the first
                again = partial(programs.by_hand_eager, in_numpy=in_numpy)
                where = differs(evidence.wanted, eager, compiled, first, _roundings(programs, leaves, dYs, again))
            words = f"step by step, at a second input, {where}" if where else ""
            return Contract(name, "FAIL" if where else "PASS", words)

        return programs.in_numpy_first(step_by_step, passes)
    if not evidence.trusted:
        return Contract(name, "SKIPPED", "autodiff of the reference is wrong here")
    where = ""
    for leaves in _other_inputs(evidence):
        try:
            mine, truth = programs.by_hand(leaves, dYs)[1], programs.in_float64(leaves, dYs)[1]
        except ProblemError as error:
            return Contract(name, "SKIPPED", f"a second input was refused: {in_short(error.__cause__ or error)}")
        where = differs(evidence.wanted, mine, truth, first)
        if not where:
            return Contract(name, "PASS")
    return Contract(name, "FAIL", f"at a second input, {where}")


def nan_stays(evidence: Evidence) -> Contract:
    """A NaN in one example reaches no element that it doesn't reach by autodiff."""
    name, batch, problem = "a NaN stays in its example", evidence.batch, evidence.programs.problem
    chosen = next((i for i in problem.wanted if evidence.leaves[i].shape[:1] == (batch,)), None)
    if chosen is None or batch is None or batch < 2 or not any(Y.hand.shape[:1] == (batch,) for Y in evidence.outputs):
        return Contract(name, "SKIPPED", "no batch axis of two or more")
    poisoned = np.array(evidence.leaves[chosen])
    poisoned[0] = np.nan
    leaves = put(evidence.leaves, [chosen], [poisoned])
    mine, theirs = (
        way(leaves, evidence.dYs[0])[1] for way in (evidence.programs.by_hand, evidence.programs.by_autodiff)
    )
    for leaf, g, a in zip(evidence.wanted, mine, theirs, strict=True):
        if g.shape != a.shape:
            return Contract(name, "FAIL", f"{leaf.name} has shape {g.shape} for {a.shape}")
        extra = np.isnan(_wide(g)) & ~np.isnan(_wide(a))
        if leaf.value.shape[:1] == (batch,):
            extra[0] = False  # its own example may do with it what it likes
        if extra.any():
            where = f"NaN in {problem.names[chosen]}[0]"
            return Contract(name, "FAIL", f"{where} makes {int(extra.sum())} more elements of {leaf.name} NaN")
    return Contract(name, "PASS")


def small_batches(evidence: Evidence) -> Iterator[Contract]:
    """A batch of one, and the shapes of an empty one, as the reference has them; of a mean or a sum over the batch,
    half of it. (Of a mean, one example is a special point: what is centered is zero there.)"""
    batch, programs = evidence.batch, evidence.programs
    has_batch = batch is not None and batch > 1 and any(leaf.shape[:1] == (batch,) for leaf in evidence.leaves)
    for size, name in ((1, "a batch of one"), (0, "an empty batch"), ((batch or 0) // 2, HALF)):
        if name == HALF and not (size > 1 and has_batch and evidence.trusted and _is_reduced(evidence, size)):
            continue
        if not has_batch or not evidence.trusted:
            words = "no batch axis" if evidence.trusted else "autodiff of the reference is wrong"
            yield Contract(name, "SKIPPED", words)
            continue
        try:
            yield programs.in_numpy_first(partial(_small_batch, evidence, name, size), passes)
        except (ProblemError, *programs.needs_numbers) as error:
            of_reference = getattr(error, "culprit", "hand") == "reference"
            whose = "the reference has none" if of_reference else "the function under test raises"
            yield Contract(name, "SKIPPED", f"{whose}: {in_short(error.__cause__ or error)}")


def _small_batch(evidence: Evidence, name: str, size: int, in_numpy: bool) -> Contract:
    """The gradients at inputs of `size` examples."""
    programs, full, leaves = evidence.programs, evidence.dYs[0], _cut(evidence, size)
    shapes = [y.shape for y in programs.output_shapes(leaves)]
    batched = [shape == (size, *dY.shape[1:]) for shape, dY in zip(shapes, full, strict=True)]
    if any(not cut and shape != dY.shape for cut, shape, dY in zip(batched, shapes, full, strict=True)):
        return Contract(name, "SKIPPED", "alone, the first example has another output")
    if not any(batched) and name != HALF:
        return Contract(name, "SKIPPED", "no output has a batch axis")
    dYs = [dY[:size] if cut else dY for dY, cut in zip(full, batched, strict=True)]
    if not size:
        mine, theirs = (way[1] for way in programs.shapes(leaves, dYs))
        return _same_shapes(name, evidence, mine, theirs) or Contract(name, "PASS")
    (_, mine), (Ys, theirs) = programs.both(leaves, dYs, in_numpy)
    if any(batched) and not _first_rows(evidence, Ys):
        return Contract(name, "SKIPPED", "alone, the first example has another output")
    if not any(batched) and _same_shapes(name, evidence, mine, theirs):
        return Contract(name, "SKIPPED", "an example is broadcast to the batch")
    found = _same(name, evidence, mine, theirs)
    if found.status == "FAIL":  # alone, an example may be worse conditioned than the whole batch
        found = _same(name, evidence, mine, theirs, _roundings(programs, leaves, dYs, programs.by_hand))
    return found


def _cut(evidence: Evidence, size: int) -> Leaves:
    return [leaf[:size] if leaf.shape[:1] == (evidence.batch,) else leaf for leaf in evidence.leaves]


def _is_reduced(evidence: Evidence, size: int) -> bool:
    """Whether every output is a scalar, or what is left of an argument without its batch axis, at `size` examples too.

    An argument that is no floating-point array may index the rows of another.
    """
    kept = {leaf.shape[1:] for leaf in evidence.leaves if leaf.shape[:1] == (evidence.batch,)} | {()}
    if not all(is_inexact(leaf) for leaf in evidence.leaves) or not all(Y.hand.shape in kept for Y in evidence.outputs):
        return False
    try:
        cut = evidence.programs.output_shapes(_cut(evidence, size))
    except (ProblemError, *evidence.programs.needs_numbers):
        return False
    return [y.shape for y in cut] == [Y.hand.shape for Y in evidence.outputs]


def _first_rows(evidence: Evidence, Ys: Leaves) -> bool:
    """Whether the reference makes of the first example alone what it makes of it among the others."""
    for Y, alone in zip(evidence.outputs, Ys, strict=True):
        first = Y.autodiff[:1] if alone.shape != Y.autodiff.shape else Y.autodiff
        if not _near(alone, first, Y.tolerance):
            return False
    return True


def _near(one: np.ndarray, other: np.ndarray, bound: float) -> bool:
    with np.errstate(invalid="ignore"):
        return one.shape == other.shape and bool(
            np.all((np.abs(_wide(one) - _wide(other)) <= 2 * bound) | (one == other))
        )


def _other_inputs(evidence: Evidence) -> Iterator[Leaves]:
    """The same numbers, smaller; in another order of examples; and each a little off."""
    rng, batch = np.random.default_rng((evidence.depth, 7)), evidence.batch
    yield [_scaled(leaf, 7 / 8) for leaf in evidence.leaves]
    yield [np.roll(leaf, 1, 0) if leaf.shape[:1] == (batch,) else leaf for leaf in evidence.leaves]
    yield [_scaled(leaf, 1 + 2**-6 * rng.uniform(-1, 1, leaf.shape)) for leaf in evidence.leaves]


def _scaled(leaf: Any, by: float | np.ndarray) -> Any:
    return (_wide(leaf) * by).astype(leaf.dtype) if is_inexact(leaf) else leaf


def _roundings(programs: Programs, leaves: Leaves, dYs: Leaves, by_hand: Way) -> list[float]:
    """T at these inputs: what autodiff errs there, and what neighboring inputs do to its answer and to that by hand. (A
    wrong gradient, and one kept from another call, are wrong among neighbors alike.)"""
    truth = programs.in_float64(leaves, dYs)[1]
    found = [0.0] * len(truth)
    for way in (programs.by_autodiff, by_hand):
        Ys, answers = way(leaves, dYs)
        noise, _ = neighbors(way, leaves, [dYs], [answers], Ys, 0)
        found = [max(pair) for pair in zip(found, noise, strict=True)]
        if way == programs.by_autodiff:
            with np.errstate(invalid="ignore"):
                errors = [largest(_wide(a) - t) for a, t in zip(answers, truth, strict=True)]
            found = [max(pair) for pair in zip(found, errors, strict=True)]
    return [tolerance.of_leaf(error, 0.0) for error in found]


def differs(
    wanted: list[LeafEvidence], mine: Leaves, right: Leaves, first: Leaves, here: list[float] | None = None
) -> str:
    """Where two gradients differ by more than rounding, elements on a kink aside; "" where they don't. `here` is T at
    these inputs, where it has been measured."""
    for i, (leaf, g, other, at_first) in enumerate(zip(wanted, mine, right, first, strict=True)):
        if g.shape != other.shape:
            return f"{leaf.name} has shape {g.shape} for {other.shape}"
        g, other = _wide(g), _wide(other)
        compared = np.isfinite(other) & np.isfinite(_wide(at_first))
        if leaf.slack is not None:
            compared &= ~np.isinf(leaf.slack[0])
        with np.errstate(invalid="ignore"):
            off = np.where(compared, np.abs(g - other), 0)
        bound = tolerance.of_cut(leaf.tolerance, leaf.scale, largest(other)) + leaf.vanishing
        if here is not None:
            bound = max(bound, 2 * here[i])
        if not np.all(off <= bound):
            return f"{leaf.name} is {largest(off):.3g} off"
    return ""


def _same_shapes(name: str, evidence: Evidence, mine: Leaves, theirs: Leaves) -> Contract | None:
    for leaf, g, a in zip(evidence.wanted, mine, theirs, strict=True):
        if g.shape != a.shape or g.dtype != a.dtype:
            return Contract(name, "FAIL", f"{leaf.name} is {g.dtype} {g.shape}, the reference's {a.dtype} {a.shape}")
    return None


def _same(name: str, evidence: Evidence, mine: Leaves, theirs: Leaves, here: list[float] | None = None) -> Contract:
    if found := _same_shapes(name, evidence, mine, theirs):
        return found
    for i, (leaf, g, a) in enumerate(zip(evidence.wanted, mine, theirs, strict=True)):
        with np.errstate(invalid="ignore"):
            off = largest(_wide(g) - _wide(a))
        bound = tolerance.of_cut(leaf.tolerance, leaf.scale, largest(_wide(a))) + leaf.vanishing
        if off > (bound if here is None else max(bound, 2 * here[i])):
            return Contract(name, "FAIL", f"{leaf.name} is {off:.3g} off")
    return Contract(name, "PASS")


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array).astype(wide(array.dtype))
