"""The other checkers, each with its defaults, on the very gradients that ours is put to."""

import importlib.util
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np

from handgrad.crosscheck.course import look
from handgrad.crosscheck.errors import Mutant, same
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.settings import Settings
from handgrad.crosscheck.subject.arguments import Leaves, put
from handgrad.crosscheck.subject.compiling import precise
from handgrad.crosscheck.subject.problem import Problem
from handgrad.crosscheck.subject.programs import Programs
from handgrad.crosscheck.verdict import judge
from shootout.kills import BAR, evidence_of, levels
from shootout.subjects import arguments, problem_of, subject
from shootout.sums import Sum

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None

Pull = Callable[[Leaves], Leaves]
Key = tuple[str, str, str, int]  # level, kind, leaf, which of these


class Subject:
    """A gradient as the others take it: a function of the differentiable arrays alone, compiled once.

    Attributes:
      problem: the problem.
      args: the differentiable leaves.
    """

    def __init__(self, problem: Problem):
        self.problem = problem

        def value(leaves: Leaves, args: Leaves) -> Any:
            return problem.differentiable(put(leaves, problem.wanted, args))[0]

        self._value = jax.jit(value)
        self._run = jax.jit(lambda leaves, dYs: problem.run(leaves, dYs)[1])

    def at(self, problem: Problem) -> "Subject":
        """The same programs on another problem's arrays."""
        other = copy(self)
        other.problem = problem
        return other

    @property
    def args(self) -> tuple[Any, ...]:
        """What is differentiated by."""
        return tuple(self.problem.leaves[i] for i in self.problem.wanted)

    def value(self, *args: Any) -> Any:
        """The output by hand, one array."""
        with precise(self.problem.x64):
            return self._value(self.problem.leaves, list(args))

    def right(self, dYs: Leaves) -> Leaves:
        """The gradient by hand, not yet broken."""
        with precise(self.problem.x64):
            return [np.asarray(g) for g in self._run(self.problem.leaves, dYs)]


def by_check_vjp(subject: Subject, pull: Pull) -> None:
    """jax.test_util.check_vjp; raises where it sees an error."""
    with jax.enable_x64(subject.problem.x64):
        args = subject.args

        def with_pull(*args: Any) -> tuple[Any, Any]:
            return np.asarray(subject.value(*args)), lambda dY: tuple(pull([np.asarray(dY)]))

        jax.test_util.check_vjp(lambda *args: np.asarray(subject.value(*args)), with_pull, args)


def by_check_grads(subject: Subject, pull: Pull) -> None:
    """jax.test_util.check_grads, reverse mode, order 1."""
    with jax.enable_x64(subject.problem.x64):

        @jax.custom_vjp
        def f(*args: Any) -> Any:
            return subject.value(*args)

        def backward(_: Any, dY: Any) -> Any:
            return tuple(jnp.asarray(g) for g in pull([np.asarray(dY)]))

        f.defvjp(lambda *args: (f(*args), None), backward)
        jax.test_util.check_grads(f, subject.args, order=1, modes=("rev",))


def by_gradcheck(subject: Subject, pull: Pull, fast: bool) -> None:
    """torch.autograd.gradcheck, the gradient in a torch.autograd.Function through NumPy."""

    class Hand(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            return _torch(subject.value(*(_numpy(a, like) for a, like in zip(args, subject.args, strict=True))))

        @staticmethod
        def backward(ctx: Any, *dYs: Any) -> Any:
            Y = subject.value(*subject.args)
            # torch's gradient of a complex number is the conjugate of JAX's.
            return tuple(_torch(np.conj(g)) for g in pull([np.conj(_numpy(dYs[0], Y))]))

    given = tuple(_torch(a).requires_grad_() for a in subject.args)
    torch.autograd.gradcheck(Hand.apply, given, fast_mode=fast)


def _torch(array: Any) -> Any:
    array = np.array(array)
    if array.dtype == jnp.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(array)


def _numpy(tensor: Any, like: Any) -> np.ndarray:
    plain = tensor.detach().to(torch.float32) if tensor.dtype == torch.bfloat16 else tensor.detach()
    return np.asarray(plain.numpy()).astype(like.dtype)


CHECKERS: dict[str, Callable[[Subject, Pull], None]] = {
    "check_grads": by_check_grads,
    "check_vjp": by_check_vjp,
    **(
        {
            "gradcheck fast": lambda subject, pull: by_gradcheck(subject, pull, fast=True),
            "gradcheck slow": lambda subject, pull: by_gradcheck(subject, pull, fast=False),
        }
        if torch is not None
        else {}
    ),
}


OURS = "handgrad"


@dataclass
class Score(Sum):
    """One checker's, by dtype.

    Attributes:
      seen, killed: mutants by (dtype, level).
      told: those killed by a checker that passes the right gradient of the same subject.
      missed, complaints: what it passed by kind, and what it said of what it killed, by (dtype, level).
      right, alarms, unsure: checks of right gradients by (dtype, scale), those that failed, those left open.
      timed, seconds: checks from scratch, and the time that they took.
      examples: a few of its false alarms.
    """

    seen: Counter = field(default_factory=Counter)
    killed: Counter = field(default_factory=Counter)
    told: Counter = field(default_factory=Counter)
    missed: Counter = field(default_factory=Counter)
    complaints: Counter = field(default_factory=Counter)
    right: Counter = field(default_factory=Counter)
    alarms: Counter = field(default_factory=Counter)
    unsure: Counter = field(default_factory=Counter)
    timed: int = 0
    seconds: float = 0.0
    examples: list[str] = field(default_factory=list)

    def saw(self, at: tuple[str, str], kind: str, complaint: str, content: bool) -> None:
        """One mutant more; no complaint: it passed."""
        self.seen[at] += 1
        if complaint:
            self.killed[at] += 1
            self.told[at] += content
            self.complaints[*at, " ".join(complaint.split()[:6])] += 1
        else:
            self.missed[*at, kind] += 1


def complaint(checker: str, subject: Subject, pull: Pull) -> str:
    """What a checker says; "" where it is content."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CHECKERS[checker](subject, pull)
    except Exception as error:  # any complaint is one, whatever its type
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return ""


class Mutants:
    """The mutants of a subject as functions of the cotangent, which the others draw themselves.

    A mutant is what the same mutation makes of the gradient for the new cotangent, drawn last beside the checker's own.
    """

    def __init__(self, evidence: Evidence, dtype: str, limit: int, per_kind: int):
        self.evidence, self.bar, self.limit = evidence, BAR[dtype], limit
        self.known: dict[bytes, dict[Key, Leaves]] = {}
        kinds: Counter = Counter()
        self.chosen: dict[Key, Mutant] = {}
        for key, m in self._keyed(evidence):
            if not self._equivalent(m):
                kinds[key[:2]] += 1
                if kinds[key[:2]] <= per_kind:
                    self.chosen[key] = m

    def pull(self, key: Key) -> Pull:
        """The broken gradient."""

        def broken(dYs: Leaves) -> Leaves:
            name = b"".join(np.asarray(dY).tobytes() for dY in dYs)
            if name not in self.known:
                self.known[name] = self._at(dYs)
            return self.known[name][key]

        return broken

    def _at(self, dYs: Leaves) -> dict[Key, Leaves]:
        evidence = self.evidence
        hand = evidence.programs.by_hand(evidence.leaves, dYs)[1]
        more = _with(evidence, dYs, hand)
        found = {key: m.cotangents[-1] for key, m in self._keyed(more)}
        return {key: found.get(key, hand) for key in self.chosen}

    def _keyed(self, evidence: Evidence) -> Iterator[tuple[Key, Mutant]]:
        for level, mutants in levels(evidence, self.bar, self.limit, 0).items():
            count: Counter = Counter()
            for m in mutants:
                # A program mutant's leaf depends on the numbers.
                leaf = "" if level == "program" else m.leaf
                of_kind = level, m.kind, leaf
                yield (*of_kind, count[of_kind]), m
                count[of_kind] += 1

    def _equivalent(self, mutant: Mutant) -> bool:
        return mutant.equivalent or same(mutant.cotangents, self.evidence.hand)


def _with(evidence: Evidence, dYs: Leaves, hand: Leaves) -> Evidence:
    return replace(evidence, dYs=[*evidence.dYs, dYs], hand=[*evidence.hand, hand])


def on_mutants(name: str, dtype: str, limit: int, per_kind: int, slow: int) -> dict[str, Score]:
    """One subject's mutants before all checkers: `per_kind` at each level, `slow` in all for gradcheck's slow mode."""
    evidence = evidence_of(subject(name), dtype, 0).random_part()
    given = Subject(evidence.programs.problem)
    mutants = Mutants(evidence, dtype, limit, per_kind)
    scores = {checker: Score() for checker in (OURS, *CHECKERS)}
    rng = np.random.default_rng(0)
    for key, mutant in mutants.chosen.items():
        said = ", ".join(judge.fails(evidence, mutant.cotangents))
        scores[OURS].saw((dtype, key[0]), key[1], said and f"wrong: {said}", content=True)
    for checker in CHECKERS:
        content, keys = not complaint(checker, given, given.right), list(mutants.chosen)
        if checker == "gradcheck slow" and len(keys) > slow:
            keys = [keys[i] for i in sorted(rng.choice(len(keys), slow, replace=False))]
        for key in keys:
            said = complaint(checker, given, mutants.pull(key))
            scores[checker].saw((dtype, key[0]), key[1], said, content)
    jax.clear_caches()
    return scores


def on_right(name: str, dtype: str, scales: tuple[float, ...], seed: int) -> dict[str, Score]:
    """One right rule before all checkers, at scale 1 from scratch and timed, then at the others."""
    case, programs = subject(name), None
    scores = {checker: Score() for checker in (OURS, *CHECKERS)}
    shared = None
    for scale in (1.0, *scales):
        args = arguments(case, jnp.dtype(dtype), seed, scale)
        problem = problem_of(case, args)
        for checker, score in scores.items():
            start = time.perf_counter()
            if checker == OURS:
                programs = programs or Programs(problem)
                report = look(programs, problem.leaves, Settings(seed=seed, control=False))
                said = report.reason if report.verdict in ("FAIL", "INVALID") else ""
                score.unsure[dtype, f"{scale:g}"] += report.verdict == "INCONCLUSIVE"
            else:
                # Each has a program of its own to compile where it is timed.
                shared = Subject(problem) if shared is None or scale == 1 else shared.at(problem)
                said = complaint(checker, shared, shared.right)
            if scale == 1:
                score.seconds += time.perf_counter() - start
                score.timed += 1
            score.right[dtype, f"{scale:g}"] += 1
            score.alarms[dtype, f"{scale:g}"] += bool(said)
            if said and not score.examples:
                score.examples.append(f"{name} {dtype} scale {scale:g}: {said}")
    jax.clear_caches()
    return scores


def summary(results: list[dict[str, Score]]) -> dict[str, Any]:
    """The figures of all subjects, by checker."""
    whole = {checker: Score() for checker in (OURS, *CHECKERS)}
    for scores in results:
        for checker, score in scores.items():
            whole[checker].add(score)
    return {checker: _figures(score) for checker, score in whole.items()}


def _figures(score: Score) -> dict[str, Any]:
    return {
        "mutants": {
            f"{dtype} {level}": {
                "seen": n,
                "killed": score.killed[dtype, level],
                "told apart": score.told[dtype, level],
                "missed": _of(score.missed, dtype, level),
                "complaints": _of(score.complaints, dtype, level),
            }
            for (dtype, level), n in score.seen.items()
        },
        "right gradients": {
            f"{dtype} scale {scale}": {
                "checks": n,
                "false alarms": score.alarms[dtype, scale],
                "inconclusive": score.unsure[dtype, scale],
            }
            for (dtype, scale), n in score.right.items()
        },
        "seconds a check": round(score.seconds / score.timed, 3) if score.timed else None,
        "examples": score.examples[:: max(1, len(score.examples) // 12)],
    }


def _of(counts: Counter, dtype: str, level: str) -> dict[str, int]:
    return dict(Counter({key[2]: n for key, n in counts.items() if key[:2] == (dtype, level)}).most_common())
