"""handgrad bench: every way of every workload computes the same, and a run that is interrupted goes on."""

import dataclasses
import json
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.checks import InputError
from handgrad.cli import bench
from handgrad.cli.bench import baselines, records, row, show
from handgrad.cli.bench.workload import Program, Workload, ways_of
from handgrad.cli.bench.workloads import ALL, WITHIN_A_MINUTE

PLAN = row.Plan(rounds=2, seconds=0.1, compilations=1)
KINDS = {(one.make.__name__, one.baselines, *sorted({**one.sizes, **one.tiny}.items())): one for one in ALL}


def squares(n, factor):
    """2 x, the gradient of x², where factor is 2."""
    return Program(
        lambda x: (jnp.sum(x**2), factor * x), jax.value_and_grad(lambda x: jnp.sum(x**2)), (np.ones(n, np.float32),)
    )


def registered(monkeypatch, **factors):
    """A registry of `squares` only."""
    made = tuple(Workload(name, squares, {"n": 3, "factor": factor}) for name, factor in factors.items())
    monkeypatch.setattr(bench, "ALL", made)
    monkeypatch.setattr(bench, "QUICK", PLAN)
    return made


def run_tiny(workload, place, torch=False):
    """The errors of every way at the tiny sizes; PyTorch uncompiled."""
    workload = dataclasses.replace(workload, sizes={**workload.sizes, **workload.tiny})
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):  # as a user's program
        program = workload.make(**workload.sizes)
        ways = ways_of(workload, program, baselines.load(workload.baselines, place, torch=torch))
        ways = {name: way for name, way in ways.items() if name != "torch.compile"}
        compiled, _ = row._compile(ways, program.donate, 1)
        return row.check(workload, program, ways, compiled)


def test_every_way_of_a_workload_computes_the_same():
    errors = run_tiny(next(one for one in ALL if one.name == "mlp-784-30-10-sigmoid"), baselines.folder(None))
    assert errors.keys() == {"hand", "jax.grad", "jax.checkpoint", "jax.grad, our forward"}
    assert max(errors.values()) < 1e-6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch.compile's own
@pytest.mark.parametrize("workload", KINDS.values(), ids=lambda one: one.name)
def test_every_way_of_every_workload_computes_the_same(workload):
    errors = run_tiny(workload, baselines.folder(None), torch=True)
    assert len(errors) > len(workload.baselines)
    assert max(errors.values()) < 1e-4


def test_names_and_baselines_of_the_registry():
    place = baselines.folder(None)
    names = [one.name for one in ALL]
    assert len(set(names)) == len(names)
    assert set(WITHIN_A_MINUTE) <= set(names)
    assert all((place / f"{name}.py").is_file() for one in ALL for name in one.baselines)
    imports = re.compile(r"^\s*(import|from) handgrad", re.MULTILINE)
    assert not any(imports.search(path.read_text()) for path in place.glob("*.py"))


def test_an_interrupted_run_goes_on(monkeypatch, tmp_path, command_line):
    registered(monkeypatch, one=2, two=2)
    file, picture = tmp_path / "new" / "bench.json", tmp_path / "ratios.png"
    measured = []

    def until(name):
        def once(workload, *args):
            if workload.name == name:
                raise KeyboardInterrupt
            measured.append(workload.name)
            return row.measure(workload, *args)

        return once

    monkeypatch.setattr(bench, "measure", until("two"))
    status, out, err = command_line("bench", "--quick", "--only", "*", "--json", file)
    assert (status, err) == (130, "handgrad: interrupted\n")
    assert "1 workloads" in out
    monkeypatch.setattr(bench, "measure", until(""))
    status, out, _ = command_line("bench", "--quick", "--only", "*", "--json", file, "--plot", picture)
    assert status == 0
    assert measured == ["one", "two"]
    assert picture.stat().st_size > 5_000
    found = json.loads(file.read_text())
    assert found["sources"] == records.sources(baselines.folder(None))
    first = found["rows"][0]
    assert first["rounds"] == 2
    assert first["ways"]["hand"]["error"] == 0
    assert first["time"]["baseline"] == first["memory"]["baseline"] == "jax.grad, our forward"
    assert first["memory"]["ratio"] == 1
    monkeypatch.setattr(records, "sources", lambda place: "others")
    status, _, err = command_line("bench", "--quick", "--only", "one", "--json", file)
    assert status == 2
    assert "are of another run, whose sources is" in err
    file.write_text("{}")
    assert "json must be a file of bench or a new one" in command_line("bench", "--only", "one", "--json", file)[2]


def test_a_wrong_answer_is_an_error(monkeypatch, command_line, tmp_path):
    registered(monkeypatch, right=2, wrong=2.01)
    status, out, err = command_line("bench", "--quick", "--only", "*", "--json", tmp_path / "rows.json")
    assert status == 1
    assert err == "handgrad: bench: wrong: by hand and jax.grad, our forward differ by 5.0e-03 in float64\n"
    assert [one["name"] for one in json.loads((tmp_path / "rows.json").read_text())["rows"]] == ["right"]
    assert "1 workloads" in out


def test_without_a_clone(monkeypatch, command_line, tmp_path):
    """As installed: against jax.grad of the same forward pass, and one line says what is missing."""
    registered(monkeypatch, one=2)
    monkeypatch.setattr(baselines.handgrad, "__file__", str(tmp_path / "a" / "b" / "c" / "__init__.py"))
    status, out, _ = command_line("bench", "--quick", "--only", "one")
    assert status == 0
    assert "independent baselines are in a clone of the repository (--baselines DIR)" in " ".join(out.split())
    message = "bench: baselines must be a folder like experiments/baselines, with __init__.py, got "
    with pytest.raises(InputError, match=message):
        baselines.folder(tmp_path)


def test_what_is_listed(command_line):
    status, out, _ = command_line("bench", "--list", "--only", "mlp-*")
    assert status == 0
    assert "mlp-784-256-256-10-relu         mlp, mlp_torch\n" in out
    assert "lenet5" not in out
    expected = "handgrad: bench: no workload is called nonsense; handgrad bench --list names them\n"
    assert command_line("bench", "--only", "nonsense")[2] == expected


def test_the_best_baseline_is_the_one_that_makes_the_same_trade():
    def figures(cpu, memory):
        return {
            "cpu_ms": cpu,
            "memory_bytes": memory,
            "compile_s": 1.0,
            "cpu_ratio": [1 / cpu] * 3,
            "wall_ratio": [1] * 3,
        }

    ways = {"hand": figures(1, 60), "a": figures(2, 100), "b": figures(4, 80), "checkpoint": figures(8, 20)}
    ways["torch"] = figures(1, None)
    quoted = row.quoted(ways, {"a", "b", "torch"}, "cpu")
    assert quoted["time"] == {"baseline": "torch", "cpu": [1] * 3, "wall": [1] * 3}
    assert quoted["time_jax"]["baseline"] == "a"
    assert quoted["memory"] == {"baseline": "b", "ratio": 0.75}
    assert row.quoted(ways, {"checkpoint"}, "cpu")["memory"]["ratio"] == 3
    assert show.geometric([0.5, 2, 0, np.inf]) == 1


def test_what_is_said_at_the_end_fits_eighty_columns():
    longest = max((one.name for one in ALL), key=len)

    def of(name, time, memory):
        return {
            "name": name,
            "clock": "cpu",
            "time": {"cpu": [0, time, 9]},
            "memory": {"ratio": memory},
            "compile": {"ratio": 1.0},
            "took": {"wall_s": 600.0, "cpu_s": 700.0},
        }

    lines = show.summary([of("good", 0.5, 1.03), of(longest, 2.0, 1.04)]).splitlines()
    assert lines == [
        "2 workloads in 1,200 s, 1,400 s of processors",
        "geometric means: time 1.00, memory 1.03, compile 1.00",
        "1 behind by more than 3%:",
        f"  {longest:28} time 2.00  memory 1.04",
    ]
    assert all(len(line) <= 80 for line in lines)
    assert show.summary([of("good", 0.5, 1.0)]).endswith("\nnone behind by more than 3%")


def test_errors():
    small = np.array([1e-9])  # where zero is right, beside larger numbers: rounding
    assert row.distance((np.array([2.0, 1.0]), small), (np.array([2.0, 2.0]), 0 * small)) == 0.5
    assert row.distance((np.ones(1), small), (np.ones(1), 0 * small)) == pytest.approx(1e-6)
    assert row.distance(np.ones(2), np.ones(3)) == np.inf
    assert np.isnan(row.distance(np.array([np.nan]), np.array([1.0])))
    assert row.distance((), ()) == 0


def test_names_and_layouts_of_a_baseline():
    """`parameters` renames what goes in and what is compared; `arguments` and `results` where they are."""
    program = Program(lambda *args: args, None, (1, 2))
    renaming = types.SimpleNamespace(ways=lambda n: {"a": abs}, parameters=lambda p: {"w": p})
    own = types.SimpleNamespace(ways=lambda n: {"b": abs}, arguments=lambda p, x: (x, p), results=lambda r: -r)
    ways = ways_of(Workload("w", lambda n: program, {"n": 1}), program, {"renaming": renaming, "own": own})
    assert ways["a"].arguments == ({"w": 1}, 2)
    assert ways["a"].alike((3, 4)) == (3, {"w": 4})
    assert (ways["b"].arguments, ways["b"].alike(5)) == ((2, 1), -5)
