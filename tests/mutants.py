"""Does the suite notice a broken rule? Every rule's backward pass is broken in three ways, and its tests are run.

    python tests/mutants.py [rule ...] [--jobs 2] [--json FILE] [--tree CHECKOUT]

A backward pass is broken by scaling its first cotangent by 1 + 1e-4 (`scale`), by dropping the last example from its
last cotangent (`example`), or by replacing the cotangent that it is given by its mean (`mean`). Against each mutant
run, until the first failure, the contracts of the table of cases, and the other tests of tests/rules and tests/layers
that name the rule. Exit status 1 where a mutant survives both.

The script is also the pytest plugin that does so: it breaks rules in a copy of the package, in one process, and forgets
every compiled program in between.
"""

import argparse
import ast
import functools
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WAYS = ("scale", "example", "mean")
EQUIVALENT = {("reinforce_loss", "example")}  # its last cotangents are zeros
# Every backward pass of the copy is wrapped in this, which breaks the one that `current` names.
BREAKABLE = '''"""Backward passes that can be broken."""

import functools

import jax
import jax.numpy as jnp

current = None


def breakable(backward):
    @functools.wraps(backward)
    def wrapped(residuals, dY, **options):
        op, way = current or (None, None)
        if backward.__name__ != f"{op}_backward":
            return backward(residuals, dY, **options)
        if way == "mean":
            dY = jax.tree.map(lambda d: jnp.broadcast_to(d.mean(), d.shape), dY)
        cotangents = list(backward(residuals, dY, **options))
        given = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]
        if way == "scale":
            cotangents[given[0]] = changed(cotangents[given[0]], lambda d: d * (1 + 1e-4))
        if way == "example":
            cotangents[given[-1]] = changed(cotangents[given[-1]], lambda d: d.at[-1].set(0) if d.ndim else d * 0)
        return tuple(cotangents)

    return wrapped


def changed(cotangent, change):
    """The last array of numbers changed: of a factor, Delta."""
    leaves, structure = jax.tree.flatten(cotangent)
    last = max(i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating))
    leaves[last] = change(leaves[last]).astype(leaves[last].dtype)
    return jax.tree.unflatten(structure, leaves)
'''


def main() -> int:
    """Copy the package, run the plugin in as many processes as there are jobs, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", help="all, if none is named")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[1])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(given.tree / "src", source)
        every = make_breakable(source)
        ops = given.rules or sorted(every)
        runs = []
        for i in range(given.jobs):
            found = Path(folder) / f"{i}.json"
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (source, given.tree / "tests", Path(__file__).parent))),
                "MUTANTS": " ".join(ops[i :: given.jobs]),
                "MUTANTS_FOUND": str(found),
            }
            command = [sys.executable, "-m", "pytest", "-p", "mutants", "-p", "no:cacheprovider", "-q", "-n0"]
            command += ["-m", "not third_party", "tests/rules", "tests/layers"]
            runs.append((subprocess.Popen(command, cwd=given.tree, env=environment), found))
        for run, _ in runs:
            run.wait()
        mutants = [mutant for _, found in runs for mutant in json.loads(found.read_text())]
    counts = {where: sum(bool(mutant[where]) for mutant in mutants) for where in ("contracts", "others")}
    unnoticed = [(m["rule"], m["way"]) for m in mutants if not m["contracts"] and not m["others"]]
    survivors = [f"{op} ({way})" for op, way in unnoticed if (op, way) not in EQUIVALENT]
    print(
        f"{len(mutants)} mutants: the contracts notice {counts['contracts']}, the rules' own tests {counts['others']}"
    )
    print("survivors:", ", ".join(survivors) or "none")
    if given.json:
        mutants.sort(key=lambda mutant: mutant["rule"])
        given.json.write_text(
            json.dumps({"counts": counts, "survivors": survivors, "mutants": mutants}, indent=1) + "\n"
        )
    return int(bool(survivors))


def make_breakable(source: Path) -> set[str]:
    """Wrap every backward pass of a copy of the package; their rules."""
    (source / "handgrad/rules/_breakable.py").write_text(BREAKABLE)
    ops = set()
    for path in sorted((source / "handgrad/rules").rglob("*.py")):
        text = path.read_text()
        functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        names = {function.name for function in functions}
        lines = text.split("\n")
        for function in reversed(functions):
            op = function.name.removesuffix("_backward")
            if f"{op}_forward" in names and op != function.name and not op.startswith("_"):
                start = function.lineno - 1
                lines[start:start] = ["from handgrad.rules._breakable import breakable", "@breakable"]
                ops.add(op)
        path.write_text("\n".join(lines))
    return ops


def pytest_runtestloop(session: Any) -> bool:
    """In place of running what was collected: each mutant, until the first test that fails."""
    from handgrad.rules import _breakable

    found = []
    for op in os.environ["MUTANTS"].split():
        contracts = [item for item in session.items if item.path.name == "test_contracts.py" and about(item, op)]
        others = sorted(
            (item for item in session.items if mentions(item.path, op)), key=lambda item: -mentions(item.path, op)
        )
        for way in WAYS:
            _breakable.current = (op, way)
            noticed = {"contracts": first_failure(contracts), "others": first_failure(others)}
            found.append({"rule": op, "way": way, **noticed})
            print(f"\n{op:28} {way:8} {noticed['contracts']} | {noticed['others']}", flush=True)
            Path(os.environ["MUTANTS_FOUND"]).write_text(json.dumps(found))
    return True


def about(item: Any, op: str) -> bool:
    """A contract of one of the rule's rows."""
    return re.search(rf"\[{op}\b", item.nodeid) is not None


@functools.cache
def mentions(path: Path, op: str) -> int:
    """How often a file of tests, of rules or layers but not of all of them, names the rule."""
    over_all = ("test_contracts.py", "test_bad_input.py", "test_range.py", "test_coupling.py", "test_padding.py")
    text = path.read_text()
    if path.name in over_all or "torch" in text:
        return 0
    return len(re.findall(rf"\b{op}(?:_backward|_forward)?\b", text)) + 100 * text.count(f"{op}_backward")


def first_failure(items: list[Any]) -> str | None:
    """The first test that fails, on a clean slate: nothing compiled, nothing remembered."""
    from _pytest.runner import runtestprotocol

    forget()
    for item in items:
        reports = runtestprotocol(item, log=False, nextitem=None)
        if any(report.failed for report in reports):
            return item.nodeid
    return None


def forget() -> None:
    """Everything that was compiled or cached for an earlier mutant."""
    import jax

    gc.unfreeze()  # conftest hides from it what was collected, the caches of tests among it
    for thing in gc.get_objects():
        if type(thing) is functools._lru_cache_wrapper and not thing.__module__.startswith(("_pytest", "mutants")):
            thing.cache_clear()
    jax.clear_caches()


if __name__ == "__main__":
    sys.exit(main())
