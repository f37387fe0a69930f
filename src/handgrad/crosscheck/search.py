"""Looking for trouble: inputs that make a gradient fail, and the smallest and simplest of them."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from handgrad.crosscheck.course import look
from handgrad.crosscheck.report.report import Report
from handgrad.crosscheck.settings import Settings
from handgrad.crosscheck.subject.arguments import Leaves, ProblemError, is_inexact, wide
from handgrad.crosscheck.subject.problem import Problem
from handgrad.crosscheck.subject.programs import Programs
from handgrad.extras import install

# What an argument may be that nobody thought of. Each takes a float64 array and a random generator.
KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "positive": lambda x, rng: np.abs(x),
    "negative": lambda x, rng: -np.abs(x),
    "saturated": lambda x, rng: 30 * x,
    "huge": lambda x, rng: 1e4 * x,
    "tiny": lambda x, rng: 1e-4 * x,
    "tied": lambda x, rng: np.round(x),
    "zero in places": lambda x, rng: np.where(rng.random(x.shape) < 0.3, 0, x),
    "of mixed scale": lambda x, rng: x * 10.0 ** rng.integers(-3, 4, x.shape),
    "zero": lambda x, rng: 0 * x,
}
# How simple the numbers of a reproduction are, the simplest first.
ROUNDED: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.round,
    lambda x: np.round(x, 1),
    lambda x: np.asarray([float(f"{v:.2g}") for v in x.reshape(-1)]).reshape(x.shape),
    lambda x: x,
)
EXAMPLES = 20  # inputs of other shapes, each compiled anew


def search(problem: Problem, settings: Settings, report: Report) -> Report:
    """Try other inputs where those given pass, and shrink whatever fails.

    Args:
      report: on the inputs given.
    Returns:
      `report` where nothing fails, with a note of what was tried; else the report on the smallest failing inputs found,
      with a line of Python that makes them again.
    Raises:
      ModuleNotFoundError: without the `search` extra.
    """
    quick = replace(settings, contracts=False, transforms=(), control=False, search=False, repair=False)
    failing, kind = problem.leaves, "as given"
    if report.verdict != "FAIL":
        found = _first_failing(problem, quick)
        if found is None:
            tried = f"searched: inputs {', '.join(KINDS)}, of size 1; none fails"
            return replace(report, notes=(*report.notes, tried))
        failing, kind = found
    smallest = _shrink(problem, failing, quick)
    final = look(Programs(replace(problem, leaves=smallest)), smallest, settings)
    note = f"found by search: inputs {kind}, shrunk to the smallest that fail"
    return replace(final, notes=(*final.notes, note), reproduce=problem.call(smallest, settings.written()))


def _first_failing(problem: Problem, quick: Settings) -> tuple[Leaves, str] | None:
    programs = Programs(problem)
    for kind, change in KINDS.items():
        rng = np.random.default_rng((quick.seed, 7))
        leaves = [_changed(leaf, lambda x, change=change, rng=rng: change(x, rng)) for leaf in problem.leaves]
        if _fails(programs, leaves, quick):
            return leaves, kind
    for n in _lengths(problem.leaves):
        leaves = _cut(problem.leaves, {n: 1})
        if _fails(_programs(problem, leaves), leaves, quick):
            return leaves, f"of size 1 for {n}"
    return None


def _shrink(problem: Problem, failing: Leaves, quick: Settings) -> Leaves:
    """The smallest shapes and the simplest numbers that still fail, by Hypothesis' own shrinker."""
    try:
        import hypothesis
        from hypothesis import strategies
        from hypothesis.errors import NoSuchExample
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"search needs hypothesis: {install('search')}") from error

    lengths = _lengths(failing)
    compiled: dict[Any, Programs | None] = {}
    seen: dict[Any, bool] = {}

    def build(sizes: dict[int, int], level: int) -> Leaves:
        return [_changed(leaf, ROUNDED[level]) for leaf in _cut(failing, sizes)]

    def still_fails(drawn: tuple[dict[int, int], int]) -> bool:
        sizes, level = drawn
        shapes = tuple(sizes.items())
        key = (*shapes, level)
        if key not in seen and len(seen) < EXAMPLES:
            leaves = build(sizes, level)
            if shapes not in compiled:
                compiled[shapes] = _programs(problem, leaves)
            seen[key] = _fails(compiled[shapes], leaves, quick)
        return seen.get(key, False)

    inputs = strategies.tuples(
        strategies.fixed_dictionaries({n: strategies.integers(1, n) for n in lengths}),
        strategies.integers(0, len(ROUNDED) - 1),
    )
    given = ({n: n for n in lengths}, len(ROUNDED) - 1)
    phases = hypothesis.Phase.generate, hypothesis.Phase.shrink  # "explain" checks more inputs than both, for a comment
    try:
        smallest = hypothesis.find(
            inputs,
            still_fails,
            settings=hypothesis.settings(max_examples=EXAMPLES, phases=phases, database=None, deadline=None),
            random=random.Random(quick.seed),
        )
    except NoSuchExample:
        smallest = given
    return build(*smallest)


def _lengths(leaves: Leaves) -> list[int]:
    """The lengths of axes that may be cut."""
    return sorted({n for leaf in leaves for n in np.shape(leaf)} - _labels(leaves) - {0, 1})


def _cut(leaves: Leaves, sizes: dict[int, int]) -> Leaves:
    """Every axis of a length among `sizes` cut to the new one."""
    return [leaf[tuple(slice(sizes.get(n, n)) for n in leaf.shape)] for leaf in leaves]


def _programs(problem: Problem, leaves: Leaves) -> Programs | None:
    """The problem's programs at inputs of other shapes; None where the functions refuse them."""
    try:
        return Programs(replace(problem, leaves=leaves))
    except ProblemError:
        return None


def _fails(programs: Programs | None, leaves: Leaves, quick: Settings) -> bool:
    """Whether these inputs fail; those that the functions refuse don't."""
    try:
        return programs is not None and look(programs, leaves, quick).verdict == "FAIL"
    except ProblemError:
        return False


def _changed(leaf: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    """A floating-point leaf with `change` made to its numbers, kept finite in its dtype; others as they are."""
    if not is_inexact(leaf):
        return leaf
    x = np.asarray(leaf).astype(wide(leaf.dtype))
    parts = [change(np.real(x)), change(np.imag(x))] if np.iscomplexobj(x) else [change(x)]
    with np.errstate(over="ignore"):
        changed = (parts[0] + 1j * parts[1] if len(parts) > 1 else parts[0]).astype(leaf.dtype)
    return np.where(np.isfinite(changed.astype(x.dtype)), changed, leaf).astype(leaf.dtype)


def _labels(leaves: Leaves) -> set[int]:
    """Lengths that integers may be positions in: labels must stay in range."""
    integers = [np.asarray(leaf) for leaf in leaves if np.issubdtype(getattr(leaf, "dtype", object), np.integer)]
    largest = max((int(a.max(initial=0)) for a in integers), default=-1)
    own = {n for a in integers for n in a.shape}
    return {n for leaf in leaves for n in np.shape(leaf) if largest >= 0 and n > largest and n not in own}
