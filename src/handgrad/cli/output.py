"""The results of `handgrad check`: an exit status, a text, a JSON file, a page."""

import importlib.util
import json
import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from handgrad.checks import InputError
from handgrad.crosscheck import Report
from handgrad.crosscheck.report.text import render
from handgrad.extras import install

SCHEMA = "handgrad.check/1"
PASS, WRONG, USAGE, UNKNOWN = 0, 1, 2, 3  # exit statuses
STATUS = {"PASS": PASS, "FAIL": WRONG, "INVALID": WRONG, "INCONCLUSIVE": UNKNOWN}
COLORS = {"PASS": "green", "FAIL": "red", "INVALID": "red", "INCONCLUSIVE": "yellow"}


def program() -> str:
    """The command as the user can repeat it: its name, or the path that it was called by where a shell doesn't find
    it by its name."""
    called, found = Path(sys.argv[0]), shutil.which("handgrad")
    if called.name != "handgrad" or (found and called.resolve() == Path(found).resolve()):
        return "handgrad"
    return shlex.quote(sys.argv[0])


def status(reports: Sequence[Report]) -> int:
    """0: all pass; 1: a gradient is wrong or could not be checked; 3: one is inconclusive, or its reference fails."""
    failing = ("INVALID", "reference")
    found = {UNKNOWN if (one.verdict, one.culprit) == failing else STATUS[one.verdict] for one in reports}
    return WRONG if WRONG in found else UNKNOWN if UNKNOWN in found else PASS


def worst_first(reports: Sequence[Report]) -> list[Report]:
    """Wrong reports, then inconclusive ones, then by error / tolerance."""
    rank = {"INVALID": 0, "FAIL": 1, "INCONCLUSIVE": 2, "PASS": 3}

    def badness(report: Report) -> tuple[int, float]:
        shares = [row.error / row.tolerance if row.tolerance > 0 else 0.0 for row in report.rows]
        return rank[report.verdict], -max((math.inf if math.isnan(share) else share for share in shares), default=0.0)

    return sorted(reports, key=badness)


def show(console: Console, report: Report) -> None:
    """Print the whole report, its verdict in color; wrapped between words where it goes to a terminal."""
    text = Text(render(report, console.width if console.is_terminal else None))
    text.stylize(f"bold {COLORS[report.verdict]}", 0, len(report.verdict))
    console.print(text, soft_wrap=True)


def hint(console: Console, report: Report, dtype: str | None) -> None:
    """Under a PASS in the inputs' own dtype, how small an error it could have hidden, if float64 would detect it."""
    narrow = [row for row in report.rows if row.dtype not in ("float64", "complex128")]
    if report.ok and narrow and dtype is None:
        worst = max(narrow, key=lambda row: row.power)
        wide = "complex128" if worst.dtype.startswith("complex") else "float64"
        words = f"{worst.dtype}: an error below {worst.power:.1e} of the largest gradient can't be detected"
        console.print(Text(f"{words}; --dtype {wide} detects smaller ones"), soft_wrap=True)


def verdict(console: Console, report: Report) -> None:
    """The verdict once more: of a long report, the first line has scrolled away."""
    console.print(Text(f"{report.verdict}  {report.name}", COLORS[report.verdict]), soft_wrap=True)


def check_writable(command: str, option: str, path: Path) -> None:
    """Raise an InputError for a file that can't be written, before minutes of work; its content is kept."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError as error:
        raise InputError(
            f"{command}: {option} must be a file that can be written, got {path} ({error.strerror})"
        ) from None
    if not there:
        path.unlink()


def check_outputs(to_json: Path | None, to_html: Path | None) -> None:
    """Raise an InputError for files that can't be written, one file for both, or a page without what it needs."""
    if to_json and to_html and to_json.resolve() == to_html.resolve():
        raise InputError(f"check: json and html must be two files, got {to_json} for both")
    if to_json:
        check_writable("check", "json", to_json)
    if to_html:
        check_writable("check", "html", to_html)
        missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(f"check: html needs {missing[0]}: {install('report')}")


def write(reports: Sequence[Report], to_json: Path | None, to_html: Path | None, console: Console) -> None:
    """Write one report, or of several all to the JSON file and the worst one to the page."""
    try:
        if to_json:
            to_json.write_text(as_json(reports) + "\n", encoding="utf-8")
            console.print(Text(f"written: {to_json}"), soft_wrap=True)
        if to_html:
            worst = worst_first(reports)[0]
            worst.to_html(to_html)
            which = f", the page of {worst.name}, the worst of {len(reports)}" if len(reports) > 1 else ""
            console.print(Text(f"written: {to_html}{which}"), soft_wrap=True)
    except OSError as error:
        raise InputError(f"check: {error.filename} can't be written ({error.strerror})") from None


def as_json(reports: Sequence[Report]) -> str:
    """One report as `Report.from_json` reads it, or a list of reports with a schema."""
    if len(reports) == 1:
        return reports[0].to_json()
    read = [json.loads(report.to_json()) for report in reports]
    return json.dumps({"schema": SCHEMA, "reports": read}, indent=1, ensure_ascii=False, allow_nan=False)
