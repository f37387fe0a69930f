"""Wrong gradients before the search for a repair: how many are repaired, on which line, and whether rightly."""

import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.source_info_util import user_context

from handgrad.cases import Case
from handgrad.crosscheck.errors.program import source
from handgrad.crosscheck.errors.program.edits import edits, gross
from handgrad.crosscheck.errors.program.program import Program, Step
from handgrad.crosscheck.errors.program.tracing import trace
from handgrad.crosscheck.errors.repair.repair import Repaired, find, steps_of
from handgrad.crosscheck.errors.repair.source import Source
from handgrad.crosscheck.errors.repair.trials import Laboratory
from handgrad.crosscheck.subject.arguments import ProblemError
from handgrad.crosscheck.subject.compiling import precise
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.problem import Problem
from handgrad.rules import Rule
from shootout import sources, strangers
from shootout.subjects import arguments, one_each, problem_of, subject
from shootout.sums import Sum

# The lines are those of the rule that is broken here.
source._PLUMBING = (*source._PLUMBING, __file__)
Part = Literal["program", "source", "pairs", "mistakes"]


@dataclass
class Tally(Sum):
    """What became of the faults of one subject.

    Attributes:
      faults: by kind, those that make the gradient wrong.
      repaired: those of them whose repair is right.
      lines: repaired ones whose line, the first that is named, is the fault's.
      named: repaired ones that name the fault's line, first or as one of at most two others.
      wrong: repairs that are not right at inputs and shapes that the search didn't use.
      misses: (kind, line, words) of what was not repaired.
      misplaced: (kind, line, reported line, words).
      found: (kind, line, reported line, words) of some that were repaired.
      seconds: of processor time, for each fault.
    """

    faults: Counter = field(default_factory=Counter)
    repaired: Counter = field(default_factory=Counter)
    lines: Counter = field(default_factory=Counter)
    named: Counter = field(default_factory=Counter)
    wrong: list[tuple[Any, ...]] = field(default_factory=list)
    misses: list[tuple[Any, ...]] = field(default_factory=list)
    misplaced: list[tuple[Any, ...]] = field(default_factory=list)
    found: list[tuple[Any, ...]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Faulty(NamedTuple):
    """A wrong gradient.

    Attributes:
      kind: what sort of fault.
      where: (file, line) of each change.
      words: what was changed.
      problem: the gradient.
    """

    kind: str
    where: list[tuple[str, int]]
    words: str
    problem: Problem


def in_program(problem: Problem, count: int, rng: np.random.Generator, together: int = 1) -> Iterator[Faulty]:
    """Faults of the catalogue: `together` expressions of the backward program changed, wherever they run."""
    leaves = problem.leaves
    with precise(problem.x64):
        Ys = jax.eval_shape(problem.primal, leaves)
        program = trace(problem.run, leaves, [np.ones(y.shape, y.dtype) for y in Ys])
    steps = [one for step in program.backward()[1] for one in step.all() if one.name != "return" and one.line]
    repeated = Source(program).repeated
    choices = [(step, edit) for step in steps for edit in (*edits(step), *gross(step)) if edit.kind not in UNLIKELY]
    kinds: dict[str, list[Any]] = {}
    for i in rng.permutation(len(choices)):
        kinds.setdefault(choices[i][1].kind, []).append(choices[i])
    turns = [
        of_kind[turn]
        for turn in range(max(map(len, kinds.values()), default=0))
        for of_kind in kinds.values()
        if turn < len(of_kind)
    ]
    for i in range(TRIES * count):
        chosen = [turns[i]] if together == 1 and i < len(turns) else []
        if together > 1 and len(turns) >= together:
            chosen = [turns[k] for k in rng.choice(len(turns), together, replace=False)]
        if not chosen or len({step.site for step, _ in chosen}) < len(chosen):
            continue
        changes = {
            site: (edit.kind, edit.words) for step, edit in chosen for site in repeated.get(step.site, (step.site,))
        }
        run = partial(_run_changed, problem.run, changes)
        where = [(step.line.file, step.line.line) for step, _ in chosen]
        words = "; ".join(f"{step.name}: {edit.words}" for step, edit in chosen)
        kind = "; ".join(edit.kind for _, edit in chosen)
        yield Faulty(kind, where, words, replace(problem, run=run, zeros=set()))


TRIES = 5  # faults made for each that is wanted: many make no wrong gradient
UNLIKELY = {
    "zeroed intermediate",
    "one branch alone",
    "last one dropped from a sum",
    "missing reduction",
    "off by one",
    "column-major",
}


def _run_changed(run: Callable[..., Any], changes: dict[int, tuple[str, str]], leaves: Any, dYs: Any) -> Any:
    program = trace(run, leaves, dYs)
    steps = steps_of(program)
    found = {
        site: edit.change
        for site, key in changes.items()
        for edit in (*edits(steps[site]), *gross(steps[site]))
        if (edit.kind, edit.words) == key
    }
    values: list[Any] = [None] * program.slots
    for slot, value in program.constants.items():
        values[slot] = value
    for slot, value in zip([*program.leaves, *program.dYs], [*leaves, *dYs], strict=True):
        values[slot] = jnp.asarray(value)
    _execute(program, program.steps, values, found)
    return [values[slot] for slot in program.Ys], [values[slot] for slot in program.cotangents]


def _execute(program: Program, steps: Sequence[Step], values: list[Any], changes: dict[int, Any]) -> None:
    """The program under JAX's tracing, each equation at the line that it had."""
    for step in steps:
        inputs = [values[slot] for slot in step.inputs]
        with user_context(step.traceback):
            if step.body is None or step.site in changes:
                outputs = program.apply(step, inputs, values, changes)
            else:
                outputs = _scan(program, step, inputs, values, changes)
        for slot, value in zip(step.outputs, outputs, strict=True):
            values[slot] = value


def _scan(program: Program, step: Step, inputs: list[Any], values: list[Any], changes: dict[int, Any]) -> list[Any]:
    body = step.body
    assert body is not None
    fixed, rest = inputs[: body.constants], inputs[body.constants :]

    def iteration(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        own = list(values)
        for slot, value in zip(body.arguments, [*fixed, *carry, *xs], strict=True):
            own[slot] = value
        _execute(program, body.steps, own, changes)
        results = [own[slot] for slot in body.results]
        return [jnp.asarray(r, c.dtype) for r, c in zip(results, carry, strict=False)], results[body.carried :]

    carry = [jnp.asarray(x) for x in rest[: body.carried]]
    final, ys = jax.lax.scan(
        iteration, carry, rest[body.carried :], length=step.params["length"], reverse=step.params["reverse"]
    )
    return [*final, *ys]


def in_source(
    case: Case, problem: Problem, args: Any, count: int, rng: np.random.Generator, folder: Path
) -> Iterator[Faulty]:
    """Faults in the text of the backward function, as it stands in its file."""
    text, name = sources.source_of(case.rule.backward)
    faults = list(sources.faults(text, name))
    forward_name = sources.source_of(case.rule.forward)[1]
    kinds: dict[str, list[Any]] = {}
    for i in rng.permutation(len(faults)):
        kinds.setdefault(faults[i].kind, []).append(faults[i])
    turns = [
        of_kind[turn]
        for turn in range(max(map(len, kinds.values()), default=0))
        for of_kind in kinds.values()
        if turn < len(of_kind)
    ]
    for i, fault in enumerate(turns[: TRIES * count]):
        path = folder / f"{case.op}_{i}.py"
        try:
            module = sources.module_of(path, f"handgrad_faulty_{case.op}_{i}", sources.changed(text, fault))
        except (SyntaxError, NameError, TypeError):
            continue
        options = case.options
        of_backward = {key: value for key, value in options.items() if key != "residuals"}
        forward = partial(getattr(module, forward_name), **options)
        backward = partial(getattr(module, name), **of_backward)
        try:
            faulty = from_rule(str(case), forward, backward, args, case.expected)
            words = f"{text[fault.start : fault.end]} -> {fault.text}"
            yield Faulty(fault.kind, [(str(path), fault.line)], words, faulty)
        except ProblemError:
            continue


def names() -> list[str]:
    """One name for each rule of the library and its options, and for each stranger's."""
    return [*one_each(), *(f"{stranger.name} stranger" for stranger in strangers.STRANGERS)]


def _case(name: str) -> Case:
    op, _, kind = name.rpartition(" ")
    if kind != "stranger":
        return subject(name)
    (found,) = [stranger for stranger in strangers.STRANGERS if stranger.name == op]
    forward, backward = (getattr(strangers, f"{op}_{way}") for way in ("forward", "backward"))
    return Case(Rule(forward, backward), kind, found.draw, lambda *args: forward(*args)[0])


def in_stranger(case: Case, args: Any, folder: Path) -> Iterator[Faulty]:
    """The mistake that this stranger makes."""
    (found,) = [stranger for stranger in strangers.STRANGERS if stranger.name == case.op]
    text = Path(strangers.__file__).read_text()
    start = text.index(found.right, text.index(f"def {case.op}_backward"))
    fault = sources.Fault("mistake", text[:start].count("\n") + 1, start, start + len(found.right), found.wrong)
    path = folder / f"{case.op}.py"
    module = sources.module_of(path, f"mistaken_{case.op}", sources.changed(text, fault))
    forward, backward = (getattr(module, f"{case.op}_{way}") for way in ("forward", "backward"))
    faulty = from_rule(str(case), forward, backward, args, case.expected)
    yield Faulty("mistake", [(str(path), fault.line)], f"{found.right} -> {found.wrong}", faulty)


def judge_subject(name: str, count: int, seed: int, part: Part) -> tuple[str, Part, Tally]:
    """The faults of one subject before the search for a repair.

    Args:
      part: where the faults are made: in the traced program, one or two at once; in the text; a stranger's mistake.
    """
    case, tally, rng = _case(name), Tally(), np.random.default_rng((seed, 13))
    args = arguments(case, np.dtype("float64"), seed)
    problem = problem_of(case, args)
    folder = Path(tempfile.mkdtemp(prefix="repairs-"))
    made = {
        "program": lambda: in_program(problem, count, rng),
        "pairs": lambda: in_program(problem, count, rng, together=2),
        "source": lambda: in_source(case, problem, args, count, rng, folder),
        "mistakes": lambda: in_stranger(case, args, folder),
    }[part]()
    for faulty in made:
        _judge(tally, faulty, seed)
        if tally.faults.total() >= count:
            break
    shutil.rmtree(folder)
    jax.clear_caches()
    return name, part, tally


def _judge(tally: Tally, faulty: Faulty, seed: int) -> None:
    kind, where, made, problem = faulty
    start = time.process_time()
    found = find(problem, problem.leaves, seed)
    seconds = time.process_time() - start
    if found is None:
        return
    with precise(True):
        wrong = bool(found.changes) and not _holds(Laboratory(problem, problem.leaves, seed + 1000), found)
    tally.faults[kind] += 1
    tally.seconds.append(seconds)
    reports = found.reports()
    at, words = [line for _, line in where], [(repair.line, repair.source, repair.change) for repair in reports]
    if wrong:
        tally.wrong.append((kind, at, made, words))
    elif found.left:
        tally.misses.append((kind, at, made, words, round(seconds, 2)))
    else:
        tally.repaired[kind] += 1
        lines = {(repair.file, repair.line) for repair in reports}
        others = {(line.file, line.line) for change in found.changes for line in change.also}
        tally.lines[kind] += set(where) <= lines
        tally.named[kind] += set(where) <= lines | others
        if set(where) <= lines | others:
            tally.found.append((kind, at, made, words))
        else:
            tally.misplaced.append((kind, at, made, words))


def _holds(laboratory: Laboratory, found: Repaired) -> bool:
    """Whether a repair is right at numbers and shapes that the search hasn't seen."""
    trials = [*laboratory.fresh(), *laboratory.others(turns=(4, 5))]
    changes = {site: one for change in found.changes for site, one in change.changes.items()}
    fixed = set(range(len(found.laboratory.given.tolerances))) - found.left
    return all(not trial.wrong(changes) & fixed for trial in trials)


def summary(results: list[tuple[str, Part, Tally]]) -> dict[str, Any]:
    """The figures of all subjects, by part."""
    parts = dict.fromkeys(part for _, part, _ in results)
    return {part: _of_part([tally for _, other, tally in results if other == part]) for part in parts}


def _of_part(results: list[Tally]) -> dict[str, Any]:
    whole = Tally()
    for tally in results:
        whole.add(tally)
    kinds = sorted(whole.faults)
    return {
        "subjects": len(results),
        "faults": whole.faults.total(),
        "repaired": whole.repaired.total(),
        "right line first": whole.lines.total(),
        "right line among those named": whole.named.total(),
        "wrong repairs": whole.wrong,
        "kinds": {
            kind: {
                "faults": whole.faults[kind],
                "repaired": whole.repaired[kind],
                "first": whole.lines[kind],
                "named": whole.named[kind],
            }
            for kind in kinds
        },
        "median seconds": round(statistics.median(whole.seconds), 2) if whole.seconds else 0.0,
        "longest": round(max(whole.seconds, default=0.0), 1),
        "not repaired": whole.misses,
        "on another line": whole.misplaced,
    }
