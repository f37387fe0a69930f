"""Exit statuses and files."""

import io
import json

import pytest
from rich.console import Console

from handgrad.checks import InputError
from handgrad.cli import output
from handgrad.crosscheck import Report

PASS, FAIL, INVALID, UNTOLD = (Report(v.lower(), v) for v in ("PASS", "FAIL", "INVALID", "INCONCLUSIVE"))

REFERENCE = Report("reference", "INVALID", "the reference raised", "reference")


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([PASS], 0),
        ([REFERENCE], 3),
        ([PASS, REFERENCE, INVALID], 1),
        ([PASS, FAIL], 1),
        ([INVALID], 1),
        ([PASS, UNTOLD], 3),
        ([UNTOLD, FAIL, PASS], 1),
    ],
)
def test_status(reports, expected):
    assert output.status(reports) == expected


def test_the_worst_first():
    assert output.worst_first([PASS, UNTOLD, FAIL]) == [FAIL, UNTOLD, PASS]


def test_a_terminal_wraps_between_words_and_a_log_does_not():
    report = Report("f", "FAIL", " ".join(["word"] * 50), notes=("a note",))
    for terminal, lines in ((True, 7), (False, 3)):
        console = Console(width=60, file=io.StringIO(), record=True, force_terminal=terminal)
        output.show(console, report)
        assert len(console.export_text().splitlines()) == lines


def test_several_reports_in_one_file(tmp_path):
    console = Console(file=io.StringIO(), record=True, width=300)
    output.write([PASS, FAIL], tmp_path / "all.json", tmp_path / "worst.html", console)
    found = json.loads((tmp_path / "all.json").read_text())
    assert found["schema"] == "handgrad.check/1"
    assert [Report.from_json(json.dumps(one)) for one in found["reports"]] == [PASS, FAIL]
    assert f"written: {tmp_path / 'worst.html'}, the page of fail, the worst of 2" in console.export_text()
    assert "fail" in (tmp_path / "worst.html").read_text()


def test_one_report_is_itself(tmp_path):
    output.write([FAIL], tmp_path / "one.json", None, Console(file=io.StringIO()))
    assert Report.from_json((tmp_path / "one.json").read_text()) == FAIL


def test_asking_leaves_nothing_behind(tmp_path):
    output.check_outputs(tmp_path / "new" / "one.json", tmp_path / "one.html")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"check: json must be a file that can be written, got .*/file/one.json \("):
        output.check_outputs(tmp_path / "file" / "one.json", None)


def test_a_file_that_goes_wrong_after_all(tmp_path):
    with pytest.raises(InputError, match=r"one\.json can't be written"):
        output.write([PASS], tmp_path / "gone" / "one.json", None, Console(file=io.StringIO()))


def test_what_a_page_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(output.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else name)
    with pytest.raises(InputError, match=r"check: html needs matplotlib: .*pip install .*\[report\]'"):
        output.check_outputs(None, tmp_path / "one.html")
