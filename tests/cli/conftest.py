"""The command line in the process of the test."""

import sys

import pytest

from handgrad.cli import main


@pytest.fixture
def command_line(monkeypatch, capsys):
    """(*arguments) -> the exit status of `handgrad *arguments`, what it wrote to stdout, and to stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["handgrad", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main()
        return leaving.value.code, *capsys.readouterr()

    return run
