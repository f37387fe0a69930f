"""How good is the checker? Broken gradients it must fail, right ones it must not, and other checkers beside it.

Four parts, each a table and a part of the JSON file; the file's other parts stay as they were:

- kills: every rule of the library on several inputs, and rules of strangers, broken in dozens of ways: grossly, by
  1e-9 of the largest element (1e-3 in float32), and in one operation of the program. Does the checker fail the
  gradient, name the leaf, say what is wrong?
- alarms: right gradients in float64, float32 and bfloat16, from 1e-6 to 1e6, to a million elements, at ties, and random
  networks. What it fails is a false alarm.
- repairs: thousands of faults of one edit, in the program and in the text of every rule, strangers' mistakes, and pairs
  of edits. Does the checker say what to write instead, on the right line, and is it ever wrong?
- others: a sample of both before `jax.test_util.check_grads`, `check_vjp` and `torch.autograd.gradcheck`, each with its
  defaults. The last one is left out where PyTorch isn't installed.

    pip install -e '.[torch]'                        # for the last one
    python experiments/checker_shootout.py --out runs/checker_shootout.json
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import study
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from shootout import alarms, kills, others, repairs
from shootout.subjects import one_each, subject, subjects

import handgrad as hg
from handgrad.checks import check_count
from handgrad.training import machine

Task = tuple[Callable[..., Any], tuple[Any, ...]]
Part = Literal["kills", "alarms", "repairs", "others"]

QUICK = ("linear rows", "softmax rows", "modulus rows")
# What the others, which are slow, see broken: a layer, activations, losses, and two strangers.
BESIDE = (
    "linear rows",
    "softmax rows",
    "gelu rows",
    "softplus tokens",
    "relu rows",
    "softmax_cross_entropy labels",
    "huber_loss rows",
    "strangers_layer_norm rows",
    "strangers_attention square",
)
TIED = (
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "absolute_error",
    "huber_loss",
    "softmax",
    "logsumexp",
    "max_to_the_first",
    "max_shared",
)
LARGE = ("linear", "softmax", "gelu", "squared_error", "softmax_cross_entropy")


@dataclass(frozen=True)
class Options:
    """Put the checker to broken gradients and right ones, and other checkers beside it."""

    quick: bool = False
    """A few rules, in this process, in seconds."""
    parts: tuple[Part, ...] = ("kills", "alarms", "repairs", "others")
    """Which parts to run; what the file has of the others stays."""
    mutants: int = 1000
    """How many mutants each rule has in each dtype, at least."""
    draws: int = 3
    """Inputs for each rule, dtype and scale in "alarms"."""
    edits: int = 8
    """How many faults each rule has in "repairs", in its program and in its text; half as many pairs."""
    workers: int = 2
    """How many processes."""
    out: Path = Path("runs/checker_shootout.json")
    """Where the figures go."""


def kill_tasks(options: Options) -> Iterator[Task]:
    """Every subject in two dtypes."""
    names = QUICK if options.quick else [str(case) for case in subjects()]
    ops = [subject(name).op for name in names]
    for dtype in kills.BAR:
        for name, op in zip(names, ops, strict=True):
            share = -(-options.mutants // ops.count(op))
            yield kills.judge_subject, (name, dtype, 1 if options.quick else share, 200)


def alarm_tasks(options: Options) -> Iterator[Task]:
    """Right gradients in three dtypes, the dearest first."""
    quick, draws = options.quick, options.draws
    for dtype in alarms.DTYPES:
        if not quick:
            yield from ((alarms.million, (op, dtype)) for op in LARGE)
            for width in (32, 128, 512):
                yield from ((alarms.wide, (width, dtype, activation, 3)) for activation in ("relu", "tanh"))
        for name in QUICK[:1] if quick else one_each():
            yield alarms.rule, (name, dtype, 1 if quick else draws)
        for op in TIED[:1] if quick else TIED:
            yield alarms.ties, (op, dtype, 1 if quick else draws)
        for seed in range(1 if quick else 12):
            yield alarms.networks, (seed, dtype, 2 if quick else 4 * draws)


def repair_tasks(options: Options) -> Iterator[Task]:
    """Faults in programs and in sources, strangers' mistakes, and pairs."""
    quick, edits = options.quick, options.edits
    for name in QUICK[:1] if quick else repairs.names():
        for part, count in (("program", edits), ("source", edits), ("pairs", max(edits // 2, 1))):
            yield repairs.judge_subject, (name, 1 if quick else count, 0, part)
    for name in repairs.names()[-1:] if quick else repairs.names():
        if name.endswith(" stranger"):
            yield repairs.judge_subject, (name, 1, 0, "mistakes")


def other_tasks(options: Options) -> Iterator[Task]:
    """A sample of both."""
    for name in QUICK[:1] if options.quick else BESIDE:
        for dtype in kills.BAR:
            yield others.on_mutants, (name, dtype, 30, 1, 4 if options.quick else 60)
    for name in QUICK[:1] if options.quick else one_each()[::4]:
        for dtype in alarms.DTYPES:
            yield others.on_right, (name, dtype, (1e3,) if options.quick else (1e-6, 1e-3, 1e3, 1e6), 0)


PARTS: dict[Part, tuple[Callable[[Options], Iterator[Task]], Callable[[list[Any]], dict[str, Any]]]] = {
    "kills": (kill_tasks, kills.summary),
    "alarms": (alarm_tasks, alarms.summary),
    "repairs": (repair_tasks, repairs.summary),
    "others": (other_tasks, others.summary),
}


def run(options: Options, progress: bool = True) -> dict[str, Any]:
    """Run the parts, print their tables, write the file after each; returns what is in it."""
    for name, value in (
        ("mutants", options.mutants),
        ("draws", options.draws),
        ("edits", options.edits),
        ("workers", options.workers),
    ):
        check_count("checker_shootout", name, value)
    study.check_lists("checker_shootout", options)
    console = Console()
    figures = _read(options.out)
    for part in options.parts:
        start = time.perf_counter()
        make, summary = PARTS[part]
        results = _results(part, list(make(options)), options, console if progress else None)
        figures[part] = {
            "made": {**machine(), "torch": others.torch and others.torch.__version__},
            "wall seconds": round(time.perf_counter() - start),
            **summary(results),
        }
        options.out.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
        console.print(TABLES[part](figures[part]))
    return figures


def _read(path: Path) -> dict[str, Any]:
    """What the file has already; the path is seen to be writable before the minutes of work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("{}\n")
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise hg.InputError(f"checker_shootout: out must be a JSON file that can be written: {error}") from error


def _results(part: str, tasks: list[Task], options: Options, console: Console | None) -> list[Any]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=console is None) as bar:
        done = _one_by_one(tasks) if options.quick else _at_once(tasks, options.workers)
        return list(bar.track(done, len(tasks), description=part))


def _one_by_one(tasks: list[Task]) -> Iterator[Any]:
    for function, arguments in tasks:
        yield function(*arguments)


def _at_once(tasks: list[Task], workers: int) -> Iterator[Any]:
    # Not forked: XLA's threads don't survive that.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(function, *arguments) for function, arguments in tasks]):
            yield future.result()


def _kills_table(figures: dict[str, Any]) -> Table:
    table = study.table("broken gradients", "", *kills.BAR)
    rows: dict[str, Callable[[dict[str, Any]], Any]] = {
        "mutants": lambda f: f["mutants"],
        "killed": lambda f: f["killed"],
        "survivors": lambda f: len(f["survivors"]),
        "right leaf named": lambda f: f["right leaf"],
        "equivalent, left out": lambda f: f["equivalent"],
        "below the bar, left out": lambda f: f["below the bar"],
        "kinds": lambda f: len(f["kinds"]),
        "fewest for a rule": lambda f: min(f["rules"].values()),
        "signature kinds diagnosed": lambda f: _share(f["signatures"]),
        "other kinds with a look": lambda f: _share(f["further diagnoses"]),
        "judged a second": lambda f: f["judged per second"],
    }
    for words, figure in rows.items():
        table.add_row(words, *(str(figure(figures[dtype])) for dtype in kills.BAR))
    return table


def _share(count: dict[str, int]) -> str:
    return f"{count['right']} of {sum(count.values())}"


def _alarms_table(figures: dict[str, Any]) -> Table:
    table = study.table("right gradients", "", "PASS", "INCONCLUSIVE", "false alarms")
    for name, count in [*figures["by kind"].items(), ("all", figures["verdicts"])]:
        wrong = count.get("FAIL", 0) + count.get("INVALID", 0)
        table.add_row(name, str(count.get("PASS", 0)), str(count.get("INCONCLUSIVE", 0)), str(wrong))
    return table


def _repairs_table(figures: dict[str, Any]) -> Table:
    parts = [part for part in figures if part not in ("made", "wall seconds")]
    table = study.table("repairs", "", *parts)
    counts = "faults", "repaired", "right line first", "right line among those named"
    for words in (*counts, "median seconds", "longest"):
        table.add_row(words, *(str(figures[part][words]) for part in parts))
    table.add_row("wrong repairs", *(str(len(figures[part]["wrong repairs"])) for part in parts))
    return table


def _others_table(figures: dict[str, Any]) -> Table:
    checkers = [name for name in figures if name not in ("made", "wall seconds")]
    table = study.table("other checkers on a sample", "", *checkers)
    for level in figures[others.OURS]["mutants"]:
        counts = [figures[name]["mutants"].get(level) for name in checkers]
        table.add_row(f"killed: {level}", *(f"{c['told apart']} of {c['seen']}" if c else "-" for c in counts))
    for at in figures[others.OURS]["right gradients"]:
        counts = [figures[name]["right gradients"][at] for name in checkers]
        table.add_row(f"false alarms: {at}", *(f"{c['false alarms']} of {c['checks']}" for c in counts))
    table.add_row("seconds a check", *(str(figures[name]["seconds a check"]) for name in checkers))
    return table


TABLES: dict[Part, Callable[[dict[str, Any]], Table]] = {
    "kills": _kills_table,
    "alarms": _alarms_table,
    "repairs": _repairs_table,
    "others": _others_table,
}


if __name__ == "__main__":
    study.main(run, Options)
