"""What types do: pyright and mypy mark the mistakes of a user's program, and nothing that is right."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow
PROGRAMS = Path(__file__).parent / "types"
# What each test finds is compared with this: {(file, line)} of the lines that say they are wrong.
WRONG = {
    (file.name, i)
    for file in PROGRAMS.glob("*.py")
    for i, line in enumerate(file.read_text().splitlines(), start=1)
    if "# wrong: " in line
}


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY / 'tests'}"}
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=REPOSITORY, env=environment
    ).stdout


def needs(tool: str) -> None:
    if importlib.util.find_spec(tool) is None:
        pytest.skip(f"{tool}, of the extra `dev`, is not installed")


def test_pyright():
    needs("pyright")
    said = run("pyright", "--outputjson", "--pythonpath", sys.executable, str(PROGRAMS))
    if not said.startswith("{"):
        pytest.skip("pyright can't be started: it downloads Node.js when it first runs")
    errors = [d for d in json.loads(said)["generalDiagnostics"] if d["severity"] == "error"]
    found = {(Path(error["file"]).name, error["range"]["start"]["line"] + 1): error["message"] for error in errors}
    assert found.keys() == WRONG, {place: found.get(place) for place in found.keys() ^ WRONG}


def test_mypy():
    needs("mypy")
    said = run("mypy", "--python-executable", sys.executable, str(PROGRAMS))
    found = {
        (Path(file).name, int(line)): message
        for file, line, message in re.findall(r"^(.*?):(\d+): error: (.*)$", said, re.MULTILINE)
    }
    assert found.keys() == WRONG, {place: found.get(place) for place in found.keys() ^ WRONG}
