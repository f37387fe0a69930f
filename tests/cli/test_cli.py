"""The command line as a person meets it."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from handgrad.cli import bench, check, demo
from handgrad.crosscheck import Comparison


def handgrad(*arguments, **options):
    command = [sys.executable, "-c", "from handgrad.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_demo(tmp_path):
    run = handgrad("demo", "--networks", 8, "--epochs", 2, "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    for expected in ("handgrad on cpu", "8.7893", "50.099", "float64", "float32", "test accuracy", "done in"):
        assert expected in run.stdout
    for name in ("metrics.jsonl", "learning_curve.png", "worst_digits.png"):
        assert name in run.stdout
        assert (tmp_path / "out" / name).stat().st_size > 0


def test_demo_says_at_once_that_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    run = handgrad("demo", "--out", tmp_path / "file")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("handgrad: make_folder: the output folder must be one that can be written, got ")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("option", ["--networks", "--epochs"])
def test_demo_starts_nothing_with_options_that_make_no_sense(option, tmp_path):
    run = handgrad("demo", option, 0, "--out", tmp_path / "untouched")
    assert (run.returncode, run.stdout) == (2, "")
    assert f"{option[2:]} must be a positive integer, got 0" in run.stderr
    assert not (tmp_path / "untouched").exists()


def test_the_questions_table():
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(demo.question_table())
    text = console.export_text()
    assert all(w in text for w in ("-8.5948", "-0.68736", "8.7893", "50.099", "-2072.178"))


@pytest.mark.parametrize("dtype", ["both", "float64", "float32"])
def test_check(dtype):
    console = Console(width=100, file=io.StringIO(), record=True)
    assert check.run(check.Check(count=2, dtype=dtype, max_depth=1), console)
    text = console.export_text()
    assert ("float64" in text, "float32" in text) == (dtype != "float32", dtype != "float64")


def test_check_fails_where_a_gradient_is_wrong(monkeypatch):
    wrong = [Comparison("seed 0: network", 2e-12, "dparams.0.W", "float64"), Comparison("n", np.nan, "dx", "float64")]
    monkeypatch.setattr(check, "compare_all", lambda jobs: iter(wrong))
    console = Console(width=100, file=io.StringIO(), record=True)
    assert not check.run(check.Check(count=2, dtype="float64"), console)
    text = console.export_text()
    assert "differs by 2.0e-12 at dparams.0.W (float64): seed 0: network" in text
    assert "differs by nan" in text


@pytest.mark.parametrize("arguments", [("check", "--count", 0), ("bench", "--repeats", 0), ("nonsense",)])
def test_usage(arguments):
    assert handgrad(*arguments).returncode == 2


def test_bench(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "MLPS", {"tiny": ((4, 3, 2), bench.layers.relu, 5)})
    monkeypatch.setattr(bench, "REPEATED", (1, 2))
    file = tmp_path / "new" / "bench.json"
    assert bench.main(bench.Bench(repeats=2, json=file)) == 0
    figures = json.loads(file.read_text())
    assert figures.keys() == {"date", "device", "cores", "jax", "python", "mlps", "repeat"}
    (row,) = figures["mlps"]
    assert row["largest_error"] < 1e-6
    assert row["time_ratio"] > 0
    assert [r["n"] for r in figures["repeat"]] == [1, 2]
