"""The command line as a person meets it."""

import io
import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from handgrad.cli import check, demo, whole
from handgrad.crosscheck import Report
from handgrad.extras import install

STARTING = "handgrad: starting JAX\n"


def test_version(command_line):
    status, out, _ = command_line("--version")
    assert status == 0
    assert re.fullmatch(r"handgrad [\d.]+, jax [\d.]+, Python [\d.]+\n", out)


@pytest.mark.slow
def test_demo(tmp_path):
    arguments = "demo", "--quick", "--networks", "10", "--epochs", "1", "--out", str(tmp_path / "out")
    command = [sys.executable, "-c", "from handgrad.cli import main; main()", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    files = "metrics.jsonl", "learning_curve.png", "worst_digits.png"
    said = "on cpu", "8.7893", "50.099", "10 random networks", "float64", "PASS", "test accuracy", "done in"
    assert all(expected in run.stdout for expected in (*said, *files)), run.stdout
    assert all((tmp_path / "out" / name).stat().st_size > 0 for name in files)


def test_demo_says_at_once_that_it_cannot_write(tmp_path, command_line):
    (tmp_path / "file").touch()
    status, out, err = command_line("demo", "--out", tmp_path / "file")
    assert (status, out) == (2, STARTING)
    assert err.startswith("handgrad: make_folder: the output folder must be one that can be written, got ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("option", ["--networks", "--epochs"])
def test_demo_starts_nothing_with_options_that_make_no_sense(option, tmp_path, command_line):
    status, out, err = command_line("demo", option, 0, "--out", tmp_path / "untouched")
    assert (status, out) == (2, STARTING)
    assert f"{option} must be a positive integer, got 0" in err
    assert not (tmp_path / "untouched").exists()


def test_the_questions_table():
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(demo.question_table())
    text = console.export_text()
    assert all(w in text for w in ("-8.5948", "-0.68736", "8.7893", "50.099", "-2072.178"))


def test_demo_fails_where_a_gradient_is_wrong(monkeypatch):
    wrong = Report("10 random networks in float64", "FAIL", "1 of 1 are wrong, 0: params.W first", "hand")
    monkeypatch.setattr(whole, "check_random_networks", lambda *args, **kwargs: wrong)
    console = Console(width=100, file=io.StringIO(), record=True)
    assert demo.prove(10, console) == 1
    assert "FAIL  10 random networks in float64: 1 of 1 are wrong, 0: params.W first" in console.export_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("bench", "--rounds", 0), "handgrad: bench: --rounds must be a positive integer, got 0\n"),
        (("check", "--count", 0), "handgrad: check: --count must be a positive integer, got 0\n"),
        (("check", "--draws", 3), "handgrad: check: --draws must divide --count, got 3 and 64\n"),
        (("check", "--seed", -1), "handgrad: check: --seed must be at least 0 and below 2**32, got -1\n"),
        (("check", "--seed", 2**32), "handgrad: check: --seed must be at least 0 and below 2**32, got 4294967296\n"),
        (("check", "--count", 10**9), "handgrad: check: --count must be at most 1,000,000, got 1,000,000,000\n"),
        (("check", "--draws", 2000), "handgrad: check: --draws must be at most 1,000, got 2,000\n"),
        (("check", "--max-depth", 10**6), "handgrad: check: --max-depth must be at most 1,000, got 1,000,000\n"),
        (("check", "--shapes", "3"), "handgrad: check: --shapes goes with a target, and none is given\n"),
        (
            ("check", "mine:f", "--shapes", "3", "--count", 5),
            "handgrad: check: --count goes with the library's rules, and a target is given\n",
        ),
        (
            ("check", "--json", "both", "--html", "../cli/both"),
            "handgrad: check: --json and --html must be two files, got both for both\n",
        ),
        (
            ("bench", "--json", "/"),
            "handgrad: bench: --json must be a file that can be written, got / (Is a directory)\n",
        ),
        (("check", "--dtype", "complex64"), "handgrad: check: the library's rules are real, got complex64\n"),
        (
            ("costs", "--model", "lenet5", "--tokens", 9),
            "handgrad: costs: --tokens must be left out for lenet5, which has none, got 9\n",
        ),
        (("costs", "--tokens", 0), "handgrad: costs: --tokens must be a positive integer, got 0\n"),
        (("nonsense",), "nonsense"),
    ],
)
def test_usage(arguments, sentence, command_line, monkeypatch, tmp_path):
    (tmp_path / "cli").mkdir()
    monkeypatch.chdir(tmp_path / "cli")
    status, _, err = command_line(*arguments)
    assert status == 2
    assert err == sentence if sentence.endswith("\n") else sentence in err


def test_check_without_a_target(monkeypatch, tmp_path, capsys):
    """All but the minutes of work."""
    plans = []
    reports = [Report("one", "PASS"), Report("two", "INCONCLUSIVE")]
    monkeypatch.setattr(check, "check_library", lambda plan, console: plans.append(plan) or reports)
    options = check.Check(dtype="float32", count=6, draws=3, seed=2, max_depth=4, search=True, json=tmp_path / "o.json")
    assert check.main(options) == 3
    assert plans == [whole.Plan(("float32",), ("float32",), 6, 3, 2, 4, True)]
    assert len(json.loads((tmp_path / "o.json").read_text())["reports"]) == 2
    assert check.main(check.Check()) == 3
    assert plans[1] == whole.Plan(("float64", "float32", "bfloat16"), ("float64", "float32"), 64, 4, 0, 8, False)


def test_check_without_hypothesis_or_an_interrupted_one(command_line, monkeypatch):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    sentence = f"handgrad: check: --search needs hypothesis: {install('search')}\n"
    assert command_line("check", "--search") == (2, "", sentence)

    def interrupted(plan, console):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "check_library", interrupted)
    assert command_line("check") == (130, "", "handgrad: interrupted\n")


def test_help_fits_eighty_columns(command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("check", "demo", "bench", "compare"):
        status, out, _ = command_line(command, "--help")
        assert status == 0
        assert max(map(len, out.splitlines())) <= 80, out


def test_costs_gpt2(command_line):
    """124 million parameters, none of which is made: 768 × 768 changes the method between 256 and 512 tokens."""
    methods = []
    for tokens in (256, 512):
        status, out, _ = command_line("costs", "--tokens", tokens)
        assert status == 0
        assert "(50257, 768)" in out
        assert "FLOPs for an example's norm" in out
        methods.append("gram" in next(line for line in out.splitlines() if "attention.mix.query.W" in line))
    assert methods == [True, False]


@pytest.mark.parametrize(
    ("model", "shape"), [("lenet5", "(5, 5, 6, 16)"), ("llama", "Stacked(Outer)"), ("lstm_language_model", "(10000, ")]
)
def test_costs_every_model(model, shape, command_line):
    tokens = () if model == "lenet5" else ("--tokens", 4)
    status, out, _ = command_line("costs", "--model", model, "--batch", 2, *tokens)
    assert status == 0
    assert shape in out
