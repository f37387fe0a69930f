"""What a check returns: an exit status, a JSON file, a page."""

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from handgrad.checks import InputError
from handgrad.crosscheck import Report

SCHEMA = "handgrad.check/1"
PASS, WRONG, USAGE, UNKNOWN = 0, 1, 2, 3  # exit statuses
COLORS = {"PASS": "green", "FAIL": "red", "INVALID": "red", "INCONCLUSIVE": "yellow"}


def status(reports: Sequence[Report]) -> int:
    """0: all pass; 1: a gradient is wrong or invalid; 3: one is inconclusive."""
    verdicts = {report.verdict for report in reports}
    return WRONG if verdicts & {"FAIL", "INVALID"} else UNKNOWN if "INCONCLUSIVE" in verdicts else PASS


def worst_first(reports: Sequence[Report]) -> list[Report]:
    """Wrong ones, then inconclusive ones, then by error / tolerance."""
    rank = {"INVALID": 0, "FAIL": 1, "INCONCLUSIVE": 2, "PASS": 3}

    def badness(report: Report) -> tuple[int, float]:
        shares = [row.error / row.tolerance if row.tolerance > 0 else 0.0 for row in report.rows]
        return rank[report.verdict], -max((math.inf if math.isnan(share) else share for share in shares), default=0.0)

    return sorted(reports, key=badness)


def show(console: Console, report: Report) -> None:
    """The whole report, its verdict in color."""
    text = Text(str(report))
    text.stylize(f"bold {COLORS[report.verdict]}", 0, len(report.verdict))
    console.print(text, soft_wrap=True)


def check_writable(path: Path, option: str) -> None:
    """Refuse a file that can't be written, before minutes of work; its content stays."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError as error:
        raise InputError(f"check: {option} must be a file that can be written, got {path} ({error.strerror})") from None
    if not there:
        path.unlink()


def check_outputs(to_json: Path | None, to_html: Path | None) -> None:
    """Refuse files that can't be written, and a page without jinja2 and matplotlib."""
    if to_json:
        check_writable(to_json, "json")
    if to_html:
        check_writable(to_html, "html")
        missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(f"check: html needs {missing[0]}: pip install 'handgrad[report]'")


def write(reports: Sequence[Report], to_json: Path | None, to_html: Path | None, console: Console) -> None:
    """One report as it is; of several, all in the JSON file and the worst one on the page."""
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
