"""README runs as pasted: its programs one after the other in one session, and the commands that it names exist."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
BLOCK = re.compile(r"```(python|bash)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
BLOCKS = BLOCK.findall(README)
PROGRAMS = [(program, printed) for kind, program, printed in BLOCKS if kind == "python"]
COMMANDS = [line for kind, lines, _ in BLOCKS if kind == "bash" for line in lines.splitlines()]
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -e "
END = "-- end of a program --"


def run(*command, **options):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # a reader's
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, **options)


def test_every_program_prints_what_stands_below_it(tmp_path):
    assert len(PROGRAMS) >= 4
    assert all(printed for _, printed in PROGRAMS)
    (tmp_path / "mine.py").write_text("".join(f"{program}\nprint({END!r})\n" for program, _ in PROGRAMS))
    session = run(sys.executable, "mine.py", cwd=tmp_path)
    assert session.returncode == 0, session.stderr
    for (program, printed), said in zip(PROGRAMS, session.stdout.split(f"{END}\n"), strict=False):
        assert said == printed, program


def test_the_drop_in_is_autodiff():
    assert any(re.search(r"^by hand +(.*)\njax.grad \1$", printed, re.MULTILINE) for _, printed in PROGRAMS)


def test_the_two_commands():
    """.ci/run takes the second one from here."""
    assert [line.split()[-1] for line in COMMANDS if line.startswith(SET_UP)] == ["demo", "auto"]
    assert len(COMMANDS) == 2


@pytest.mark.slow
def test_other_commands_know_their_options():
    """The subcommands and options of what README names as `handgrad ...`, by their `--help`."""
    named = [shlex.split(command) for command in re.findall(r"`handgrad ([^`]+)`", README)]
    assert named
    for command in named:
        page = run(sys.executable, "-c", "from handgrad.cli import main; main()", command[0], "--help")
        assert page.returncode == 0, page.stderr
        assert all(word in page.stdout for word in command if word.startswith("--")), command
