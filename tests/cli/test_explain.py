"""handgrad explain as a person meets it."""

import json
import re

import numpy as np
import pytest
from conftest import REPOSITORY

from handgrad.cli import explain

MODULE = """
import numpy as np
import handgrad as hg

def mine():
    model = hg.chain(hg.linear(2), hg.relu(), hg.linear(1))
    params = (hg.LinearParams(np.ones((2, 2)), np.zeros(2)), (), hg.LinearParams(np.ones((2, 1)), np.zeros(1)))
    return model, params, np.array([[1.0, -2.0]], np.float32), np.array([[0.5]])

def with_loss():
    return *mine(), hg.absolute_error()

def other():
    return {"model": 1}

def three():
    return 1, 2, 3

def no_model():
    return hg.linear, (), 1, 2

def no_loss():
    return *mine(), hg.squared_error

def fails():
    raise KeyError("inside")

def misfit():
    return *mine()[:3], np.ones((1, 3))

number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "explained_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "explained_module"


def test_the_question(command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = command_line("explain", "--question")
    assert (status, err) == (0, "")
    column = [line.split()[2] for line in out.splitlines() if re.match(r"  \d+ ", line)]
    assert len(column) == 20
    assert (column[0], column[1], column[2], column[-1]) == ("-8.5948", "-0.68736", "3.6233", "8.7893")
    assert max(map(len, out.splitlines())) <= 80
    assert command_line("explain")[1] == out


@pytest.mark.parametrize(("fmt", "start"), [("markdown", "# A network of sizes 3, 2"), ("latex", r"\documentclass")])
def test_a_file_and_one_that_exists(fmt, start, command_line, tmp_path):
    arguments = ("explain", "--sizes", "3,2", "--steps", 1, "--format", fmt, "--out", tmp_path / "page")
    status, out, _ = command_line(*arguments)
    assert (status, out) == (0, f"written: {tmp_path / 'page'}\n")
    written = (tmp_path / "page").read_text(encoding="utf-8")
    assert written.startswith(start)
    status, out, err = command_line(*arguments)
    sentence = (
        f"handgrad: explain: --out must be a new file, got {tmp_path / 'page'}, which exists; --force replaces it\n"
    )
    assert (status, out, err) == (2, "", sentence)
    (tmp_path / "page").write_text("")
    assert command_line(*arguments, "--force")[0] == 0
    assert (tmp_path / "page").read_text(encoding="utf-8") == written


@pytest.mark.parametrize(
    ("name", "start"), [("p.md", "# A network"), ("p.tex", r"\documentclass"), ("p.json", "{"), ("p.txt", "A network")]
)
def test_the_suffix_is_the_format(name, start, command_line, tmp_path):
    assert command_line("explain", "--sizes", "1,1", "--steps", 1, "--out", tmp_path / name)[0] == 0
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_a_wrong_type_names_the_commands_help(command_line):
    status, _, err = command_line("explain", "--batch", "two")
    assert status == 2
    assert "handgrad explain --help" in err


def test_a_network_of_the_users(module, command_line):
    status, out, _ = command_line("explain", f"{module}:mine", "--steps", 2, "--learning-rate", 0.01)
    assert status == 0
    assert "Loss: squared_error" in out
    assert "relu" in out
    assert "2 steps" in out
    status, out, _ = command_line("explain", f"{module}:with_loss", "--steps", 1, "--format", "json")
    data = json.loads(out)
    assert data["loss"]["kind"] == "absolute_error"
    assert data["rates"][data["rate"]] == 0.1
    assert len(data["rates"]) == 9
    assert np.shape(data["runs"][0]["steps"][0]["layers"][0]["grads"]["W"]["value"]["data"]) == (2, 2)


def test_a_rule(command_line):
    status, out, _ = command_line("explain", "--rule", "tanh")
    assert status == 0
    assert "4. Read off" in out


def test_the_page_gets_the_data(command_line, monkeypatch):
    given = []
    monkeypatch.setattr(explain, "_page", lambda data: given.append(data) or "<html>")
    status, out, _ = command_line("explain", "--sizes", "2,1", "--steps", 1, "--format", "html", "--quiz")
    assert (status, out) == (0, "<html>")
    assert given[0]["quiz"] is True
    assert [run["rate"] for run in given[0]["runs"]] == given[0]["rates"]


RETURNS = "must return (model, params, x, target), or with a loss as the fifth, got"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--sizes", "3"), "--sizes must be two positive integers or more, as in 3,2, got '3'"),
        (("--sizes", "3,-2"), "--sizes must be two positive integers or more, as in 3,2, got '3,-2'"),
        (("--sizes", "3,2", "--batch", 0), "--batch must be a positive integer, got 0"),
        (("--sizes", "3,2", "--seed", -1), "--seed must be at least 0 and below 2**32, got -1"),
        (("--sizes", "3,2", "--steps", 0), "--steps must be a positive integer, got 0"),
        (("--sizes", "3,2", "--learning-rate", 0), "--learning-rate must be a positive number, got 0.0"),
        (("--learning-rate", "nan"), "--learning-rate must be a positive number, got nan"),
        (
            ("--sizes", "999,1000,1"),
            "--sizes and --batch must give at most 1,000,000 numbers in a step, got 1,005,001 for sizes 999,1000,1 and "
            "batch 2",
        ),
        (
            ("--sizes", "3,2", "--activation", "rule"),
            r"--activation must be 'identity', .* or 'log_softmax', got 'rule'",
        ),
        (("--sizes", "3,2", "--loss", "error"), r"--loss must be 'squared_error', .* or 'hinge_loss', got 'error'"),
        (("--rule", "layernorm"), r"--rule must be one of \d+ names \(similar: layer_norm, .*\), got 'layernorm'"),
        (("--rule", "tanh", "--steps", 3), "--steps goes with networks, not with --rule"),
        (("--rule", "tanh", "--format", "html"), "--rule goes with --format text, markdown or latex, not with html"),
        (
            ("--question", "--chain"),
            "expected one of TARGET, --question, --chain, --sizes, --rule, got --question and --chain",
        ),
        (("--batch", 3), "--batch goes with --sizes"),
        (("--chain", "--loss", "l2_loss"), "--loss goes with --sizes or TARGET, not with --chain"),
        (("--quiz",), "--quiz goes with --format html, not with text"),
        (("nowhere:mine",), "target nowhere:mine can't be imported: no module nowhere"),
        (("explained_module:number",), "target must be a function, got explained_module:number: int"),
        (("explained_module:other",), f"explained_module:other {RETURNS} dict"),
        (("explained_module:three",), f"explained_module:three {RETURNS} tuple of 3"),
        (("explained_module:no_model",), f"explained_module:no_model {RETURNS} function in the place of the model"),
        (("explained_module:no_loss",), f"explained_module:no_loss {RETURNS} function in the place of the loss"),
        (("explained_module:fails",), "explained_module:fails raised KeyError: 'inside'"),
        (
            ("a/mine.py:network",),
            "target must be written as package.module:name, got 'a/mine.py:network'; write a.mine:network",
        ),
        (("/a/mine.py",), "target must be written as package.module:name, got '/a/mine.py'; write mine:name"),
        (("--out", "/"), "--out must be a file, got /, which is a folder"),
        (("--out", "/", "--force"), "--out must be a file, got /, which is a folder"),
        (("--out", "new.html", "--format", "text"), "--out new.html is a file for --format html, got text"),
        (("explained_module:misfit",), None),
    ],
)
def test_usage(arguments, sentence, module, command_line):
    status, out, err = command_line("explain", *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    if sentence is None:
        assert "the target must have shape (1, 1) like the prediction, got" in err  # without the rule's letters
        return
    pattern = sentence if ".*" in sentence else re.escape(sentence)
    assert re.fullmatch(f"handgrad: explain: {pattern}\n", err), err


def test_help_fits_eighty_columns(command_line, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = command_line("explain", "--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80, out


def test_what_the_guide_shows(command_line, tmp_path, monkeypatch):
    """Commands print what the page shows, and the network on it is one."""
    page = (REPOSITORY / "docs/howto/explain.md").read_text(encoding="utf-8")
    shown = re.findall(r"```bash\nhandgrad (explain [^\n]*)\n```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert shown
    for command, text in shown:
        status, out, _ = command_line(*command.split())
        assert status == 0
        assert [line.rstrip() for line in out.splitlines()] == [line.rstrip() for line in text.splitlines()]
    (network,) = re.findall(r"```python\n((?:(?!```).)*def network.*?)```", page, re.DOTALL)
    (tmp_path / "guide_network.py").write_text(network)
    monkeypatch.syspath_prepend(str(tmp_path))
    status, out, _ = command_line("explain", "guide_network:network")
    assert status == 0
    assert "layer_norm" in out
