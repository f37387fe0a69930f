"""Right gradients before our checker: whatever it fails is a false alarm."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import layers, models
from handgrad.cases import Case
from handgrad.cases.case import Arrays, normal
from handgrad.crosscheck.course import look
from handgrad.crosscheck.evidence.collect import collect
from handgrad.crosscheck.settings import Settings
from handgrad.crosscheck.subject.forms import from_model
from handgrad.crosscheck.subject.programs import Programs
from handgrad.crosscheck.verdict import judge
from handgrad.rules import Rule
from shootout.subjects import arguments, problem_of, subject, subjects

DTYPES = ("float64", "float32", "bfloat16")
SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
MILLION = 1_000_000


@dataclass
class Verdicts:
    """What the checker said of right gradients.

    Attributes:
      what: "rules", "ties", "networks", "wide", "million".
      dtype: of the inputs.
      counts: by verdict.
      reasons: of what is inconclusive, without its leaf and numbers.
      alarms: (name, what was said) of what failed.
      seconds: in all.
    """

    what: str
    dtype: str
    counts: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    alarms: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, name: str, verdict: str, reason: str) -> None:
        """One check more."""
        self.counts[verdict] += 1
        if verdict in ("FAIL", "INVALID"):
            self.alarms.append((name, reason))
        elif verdict == "INCONCLUSIVE":
            self.reasons[f"{name.split(' ')[0]}: {reason.split(': ')[-1]}"] += 1


def rule(name: str, dtype: str, draws: int, scales: tuple[float, ...] = SCALES) -> Verdicts:
    """One rule on one kind of input, at every scale, `draws` times each: compiled once."""
    case = subject(name)
    inputs = (
        (f"{name} {dtype} scale {scale:g} seed {seed}", arguments(case, _dtype(dtype), seed, scale), seed)
        for scale in scales
        for seed in range(draws)
    )
    return _checks("rules", dtype, case, inputs)


def ties(op: str, dtype: str, draws: int) -> Verdicts:
    """A rule with a kink, on it: zeros, equal numbers, targets met, and whole numbers that tie by chance."""
    case = next(case for case in [*subjects(), *MAXIMA] if case.op == op)

    def inputs() -> Iterator[tuple[str, Arrays, int]]:
        for seed in range(draws):
            rng = np.random.default_rng([seed, *op.encode()])
            args = tuple(
                rng.integers(-2, 3, np.shape(a)).astype(_dtype(dtype)) if np.asarray(a).dtype.kind == "f" else a
                for a in case.draw(rng)
            )
            yield f"{op} ties {dtype} seed {seed}", args, seed

    return _checks("ties", dtype, case, inputs())


def million(op: str, dtype: str) -> Verdicts:
    """A rule on a million numbers."""
    case = next(case for case in subjects() if case.op == op)
    rng = np.random.default_rng(0)
    shapes = ((1000, 1000), (1000, 1000), (1000,)) if op == "linear" else ((1000, 1000),)
    args: list[Any] = [rng.standard_normal(shape).astype(_dtype(dtype)) for shape in shapes]
    if op == "softmax_cross_entropy":
        args.append(rng.integers(0, 1000, 1000))
    if op == "squared_error":
        args.append(rng.standard_normal((1000, 1000)).astype(_dtype(dtype)))
    return _checks("million", dtype, case, [(f"{op} a million {dtype}", tuple(args), 0)])


def networks(seed: int, dtype: str, draws: int, max_depth: int = 8) -> Verdicts:
    """Random networks of one structure, each with numbers of its own."""
    start, verdicts, programs = time.perf_counter(), Verdicts("networks", dtype), None
    for draw in range(draws):
        network = models.random_network(seed, _dtype(dtype), max_depth, draw)
        name = f"network {seed} draw {draw} {dtype}"
        problem = from_model(name, network.model, network.loss, network.arguments)
        programs = programs or Programs(problem)
        evidence = collect(programs, problem.leaves, seed, draws=1, basis=0)
        rows = judge.rows(evidence, evidence.hand)
        worst = rows[0]
        verdicts.add(name, worst.status, f"{worst.leaf}: {worst.diagnosis or worst.reason or _figures(worst)}")
    return _done(verdicts, start)


def wide(width: int, dtype: str, activation: str, draws: int) -> Verdicts:
    """A network of three layers of one width."""
    start, verdicts, programs = time.perf_counter(), Verdicts("wide", dtype), None
    act = getattr(layers, activation)
    model = layers.chain(
        layers.linear(width), act(), layers.residual(layers.chain(layers.linear(width), act())), layers.linear(10)
    )
    loss = layers.softmax_cross_entropy()
    for seed in range(draws):
        rng = np.random.default_rng([seed, width])
        x = rng.standard_normal((32, width)).astype(_dtype(dtype))
        with jax.enable_x64(dtype == "float64"):
            params = jax.tree.map(np.asarray, model.init(jax.random.key(seed), x))
        name = f"{activation} {width} {dtype} seed {seed}"
        problem = from_model(name, model, loss, (params, x, rng.integers(0, 10, 32), None))
        programs = programs or Programs(problem)
        report = look(programs, problem.leaves, _settings(seed))
        verdicts.add(name, report.verdict, report.reason)
    return _done(verdicts, start)


def _checks(what: str, dtype: str, case: Case, inputs: Any) -> Verdicts:
    start, verdicts, programs = time.perf_counter(), Verdicts(what, dtype), None
    for name, args, seed in inputs:
        problem = problem_of(case, args)
        programs = programs or Programs(problem)
        report = look(programs, problem.leaves, _settings(seed))
        verdicts.add(name, report.verdict, report.reason)
    return _done(verdicts, start)


def _settings(seed: int) -> Settings:
    return Settings(seed=seed, transforms=(), control=False)


def _done(verdicts: Verdicts, start: float) -> Verdicts:
    verdicts.seconds = time.perf_counter() - start
    jax.clear_caches()
    return verdicts


def _figures(row: Any) -> str:
    return f"error {row.error:.2g}, tolerance {row.tolerance:.2g}"


def _dtype(name: str) -> Any:
    return jnp.dtype(name)


# max, with the two conventions that people have at a tie.


def max_to_the_first_forward(X: Array) -> tuple[Array, Array]:
    """The maximum of each row."""
    return jnp.max(X, -1), X


def _to_the_first(X: Array, dY: Array) -> Arrays:
    return (jnp.where(jnp.arange(X.shape[-1]) == X.argmax(-1, keepdims=True), dY[..., None], 0).astype(X.dtype),)


def max_shared_forward(X: Array) -> tuple[Array, Array]:
    """The maximum of each row."""
    return jnp.max(X, -1), X


def _shared(X: Array, dY: Array) -> Arrays:
    tied = (X.max(-1, keepdims=True) == X).astype(X.dtype)
    return (dY[..., None] * tied / tied.sum(-1, keepdims=True),)


MAXIMA = [
    Case(rule, "rows", normal((4, 5)), lambda X: jnp.max(X, -1))
    for rule in (Rule(max_to_the_first_forward, _to_the_first), Rule(max_shared_forward, _shared))
]


def summary(results: list[Verdicts]) -> dict[str, Any]:
    """The figures of all checks, by what was checked and its dtype; every alarm in full."""
    counts: dict[str, Counter] = {}
    reasons: Counter = Counter()
    for one in results:
        counts.setdefault(f"{one.what} {one.dtype}", Counter()).update(one.counts)
        reasons.update({f"{one.dtype} {reason}": n for reason, n in one.reasons.items()})
    verdicts: Counter = sum(counts.values(), Counter())
    return {
        "checks": verdicts.total(),
        "verdicts": dict(verdicts),
        "false alarms": [list(alarm) for one in results for alarm in one.alarms],
        "by kind": {name: dict(count) for name, count in sorted(counts.items())},
        "inconclusive": dict(reasons.most_common()),
        "seconds": round(sum(one.seconds for one in results), 1),
    }
