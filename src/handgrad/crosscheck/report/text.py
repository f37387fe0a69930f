"""A report as aligned text, for terminals and for the message of a failing test."""

import io
import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from handgrad.crosscheck.report.report import Contract, Control, Report, Row

WIDTH = 120
LEFT = ("status", "leaf", "array")
VALUES = ("by hand", "autodiff", "float64", "differences")
SHOWN = 20  # survivors named, at most; JSON and the page have them all


def render(report: Report, width: int | None = None) -> str:
    """The whole report as text without colors.

    Sentences keep to one line however long they are, so that they can be searched for and copied. The table of rows
    keeps to the width: where its columns need more, the values at the worst element stand in a second one.

    Args:
      report: any report.
      width: columns that the tables may take; 120 where nothing is said.
    Returns:
      lines joined by newlines, without one at the end.
    """
    reason = f": {one_line(report.reason)}" if report.reason else ""
    lines = [f"{report.verdict}  {one_line(report.name)}{reason}"]
    lines += [f"culprit: {report.culprit}"] if report.culprit else []
    if report.rows:
        lines += ["", *_rows(report.rows, width or WIDTH)]
    rest = [f"kink: {one_line(kink)}" for kink in report.kinks]
    rest += [*_contracts(report.contracts), *_control(report.control)]
    rest += [f"note: {one_line(note)}" for note in report.notes]
    rest += [f"settings: {inline(report.settings)}"] if report.settings else []
    rest += [f"reproduce: {report.reproduce}"] if report.reproduce else []
    return "\n".join(line.rstrip() for line in [*lines, *([""] if rest else []), *rest])


def cells(row: Row) -> dict[str, str]:
    """The columns of a row's table, heading by heading."""
    texts = {
        "status": row.status,
        "leaf": row.leaf,
        "array": f"{row.dtype}[{','.join(map(str, row.shape))}]",
        "ρ": "-" if math.isnan(row.rho) else figure(row.rho, ".3g"),
        "error": figure(row.error),
        "at": str(tuple(map(int, row.index))),  # int: an index of NumPy's prints as np.int64(3)
        "tolerance": figure(row.tolerance),
        "by hand": row.by_hand,
        "autodiff": row.by_autodiff,
        "float64": row.by_float64,
        "differences": row.by_differences,
        "bad %": figure(100 * row.bad, ".3g"),
        "power": figure(row.power),
    }
    return {heading: one_line(text) for heading, text in texts.items()}


def figure(number: float, digits: str = ".1e") -> str:
    """A number as short as a table wants it: 1.2e-07, 0, ∞, NaN."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return format(float(number), digits) if number else "0"


def explanation(row: Row) -> str:
    """What the row has to say beside its figures; "" where there is nothing."""
    return "; ".join(one_line(part) for part in (row.diagnosis, row.reason) if part)


def inline(value: Any) -> str:
    """Settings, however nested, on one line: "seed=0, draws=3, versions=(jax=0.10.2, numpy=2.4)"."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key}=({inline(item)})" if isinstance(item, dict) else f"{key}={inline(item)}"
            for key, item in value.items()
        )
    if isinstance(value, list | tuple):
        return f"({', '.join(inline(item) for item in value)})"
    return one_line(str(value))


def one_line(text: str) -> str:
    """The text with every run of white space made one space."""
    return " ".join(text.split())


def _rows(rows: Sequence[Row], width: int) -> Iterator[str]:
    table, below = [cells(row) for row in rows], [explanation(row) for row in rows]
    headings = list(table[0])
    for gap in (2, 1):
        if _needed(table, headings, gap) <= width:
            yield from _table(table, headings, gap, width, below)
            return
    figures = [heading for heading in headings if heading not in VALUES]
    yield from _table(table, figures, 2 if _needed(table, figures, 2) <= width else 1, width, below)
    yield ""
    yield from _table(table, ["leaf", "at", *VALUES], 2, width, [""] * len(table))


def _needed(table: Sequence[dict[str, str]], headings: Sequence[str], gap: int) -> int:
    """The width of these columns with nothing folded."""
    longest = [max(len(heading), *(len(row[heading]) for row in table)) for heading in headings]
    return sum(longest) + gap * (len(longest) - 1)


def _table(
    table: Sequence[dict[str, str]], headings: Sequence[str], gap: int, width: int, below: Sequence[str]
) -> Iterator[str]:
    """Aligned lines, the heading first; a sentence `below` its row starts under the leaf's name."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Of all the columns, only the names of leaves know no bounds: they are folded to what the others leave.
    longest = max(len(row["leaf"]) for row in table)
    space = max(12, longest - max(0, _needed(table, headings, gap) - width))
    names = [textwrap.wrap(row["leaf"], space) or [""] for row in table]

    made = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for heading in headings:
        justify = "left" if heading in LEFT else "right"
        made.add_column(Text(heading), justify=justify, no_wrap=True, overflow="crop")
    for row, (first, *others) in zip(table, names, strict=True):
        # Text, not str: rich would read "[0]" in the name of a leaf as markup.
        made.add_row(*(Text(first if heading == "leaf" else row[heading]) for heading in headings))
        for other in others:
            made.add_row(*(Text(other if heading == "leaf" else "") for heading in headings))

    # Wide enough that rich shortens nothing, and deaf to the notebook, the terminal and the colors it may run in.
    out = io.StringIO()
    console = Console(
        file=out,
        width=_needed(table, headings, gap) + gap * len(headings),
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(made)
    lines = iter(out.getvalue().splitlines())
    yield next(lines)
    indent = max(len("status"), *(len(row["status"]) for row in table)) + gap
    for name, sentence in zip(names, below, strict=True):
        for _ in name:
            yield next(lines)
        if sentence:
            yield " " * indent + sentence


def _contracts(contracts: Sequence[Contract]) -> Iterator[str]:
    if not contracts:
        return
    kept = [one_line(contract.name) for contract in contracts if contract.status == "PASS"]
    skipped = [_named(contract) for contract in contracts if contract.status == "SKIPPED"]
    others = [contract for contract in contracts if contract.status not in ("PASS", "SKIPPED")]
    looked_at = len(contracts) - len(skipped)
    count = f"{len(kept)} of {looked_at}" if others else str(len(kept))
    line = f"contracts: {count} kept{': ' if kept else ''}{', '.join(kept)}"
    yield line + (f"; {len(skipped)} skipped: {', '.join(skipped)}" if skipped else "")
    for contract in others:
        yield f"  {contract.status}  {one_line(contract.name)}" + (
            f": {one_line(contract.detail)}" * bool(contract.detail)
        )


def _named(contract: Contract) -> str:
    return one_line(contract.name) + (f" ({one_line(contract.detail)})" if contract.detail else "")


def control_summary(control: Control) -> str:
    """How many mutants the check killed: "23 of 23 mutants killed"."""
    killed = sum(control.killed.values())
    equivalent = f" ({control.equivalent} more compute the same numbers)" if control.equivalent else ""
    return f"{killed} of {killed + len(control.survived)} mutants killed{equivalent}"


def _control(control: Control | None) -> Iterator[str]:
    if control is None:
        return
    yield f"control: {control_summary(control)}" + ("; survived:" if control.survived else "")
    for description in control.survived[:SHOWN]:
        yield f"  {one_line(description)}"
    if len(control.survived) > SHOWN:
        yield f"  and {len(control.survived) - SHOWN} more"
