"""The notebooks run, from their pages' own text."""

import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs/notebooks").glob("*.md"))
CELL = re.compile(
    r"^```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n|(?::\w+:[^\n]*\n)*)(.*?)^```$", re.DOTALL | re.MULTILINE
)
PICTURE = re.compile(r"^(Picture\(.*\))$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_a_notebook_runs(page, tmp_path):
    """Each picture is drawn, too, as a notebook would show it."""
    cells = CELL.findall(page.read_text())
    program = tmp_path / "cells.py"
    program.write_text(PICTURE.sub(r"print(len(\1._repr_svg_()) > 1000)", "\n".join(cells)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", str(program)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=page.parent)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines().count("True") == len(PICTURE.findall("\n".join(cells))) >= 3


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.stem)
def test_a_notebook_has_three_exercises_and_describes_its_pictures(page):
    text = page.read_text()
    assert len(re.findall(r"^<summary>Answer</summary>$", text, re.MULTILINE)) == 3
    assert text.count("    alt: ") == len(PICTURE.findall(text))
