"""A report as text, for terminals and for the message of a failing test."""

import math
import os
import re
import textwrap
from collections.abc import Iterator, Sequence

from handgrad.crosscheck.report.report import Contract, Control, Repair, Report, Row, number

TABLE = ("status", "leaf", "array", "error", "tolerance", "ρ", "power")
VALUES = ("by hand", "autodiff", "float64", "differences")
LEFT = ("status", "leaf", "array")  # columns that are aligned left
SHOWN = 20  # survivors listed, at most; JSON and HTML list all
SURVIVED = (
    "survived: they differ by no more than rounding at these inputs, so this run can't detect such errors. They don't "
    "count against the gradient"
)


def render(report: Report, width: int | None = None) -> str:
    """The whole report as plain text.

    Args:
      report: any report.
      width: columns to wrap to, between words; the line of `reproduce` is never wrapped, so that it can be copied. None
        wraps nothing: each sentence is one line, which can be searched for.
    Returns:
      lines joined by newlines, without one at the end.
    """
    reason = report.reason.removeprefix(f"{report.name}: ")
    head = [f"{report.verdict}  {one_line(report.name)}{': ' * bool(reason)}{one_line(reason)}"]
    head += [f"culprit: {report.culprit}"] if report.culprit else []
    rest = [f"kink: {one_line(kink)}" for kink in report.kinks]
    rest += [*_contracts(report.contracts), *_control(report.control)]
    rest += [f"note: {one_line(note)}" for note in report.notes]
    settings = {key: value for key, value in report.settings.items() if value is not None}
    rest += [f"settings: {inline(settings)}"] if settings else []
    lines = [*_wrapped(head, width), *_repairs(report.repair, width)]
    lines += ["", *_rows(report.rows, width)] if report.rows else []
    lines += ["", *_wrapped(rest, width)] if rest else []
    lines += [f"reproduce: {report.reproduce}"] if report.reproduce else []
    return "\n".join(line.rstrip() for line in lines)


def cells(row: Row) -> dict[str, str]:
    """{heading: text} of a row's figures."""
    texts = {
        "status": row.status,
        "leaf": row.leaf,
        "array": f"{row.dtype}[{','.join(map(str, row.shape))}]",
        "error": "-" if row.came is not None else figure(row.error),
        "tolerance": figure(row.tolerance),
        "ρ": "-" if math.isnan(row.rho) else figure(row.rho, ".2g"),
        "power": figure(row.power),
        "by hand": number(row.by_hand) if row.came is None else f"shape {row.came}",
        "autodiff": number(row.by_autodiff) if row.came is None else f"shape {row.shape}",
        "float64": number(row.by_float64),
        "differences": number(row.by_differences),
        "at": str(tuple(map(int, row.index))),  # int: NumPy's integers print as np.int64(3)
        "bad %": figure(100 * row.bad, ".3g"),
    }
    return {heading: one_line(text) for heading, text in texts.items()}


def figure(number: float, digits: str = ".1e") -> str:
    """A number in few characters: 1.2e-07, 0, ∞, NaN."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return format(float(number), digits) if number else "0"


def explanation(row: Row) -> str:
    """The row's diagnosis and reason; "" where there is neither."""
    return "; ".join(one_line(part) for part in (row.diagnosis, row.reason) if part)


def place(repair: Repair) -> str:
    """A repair's "file:line", the file relative to the current folder where it is inside."""
    file = os.path.relpath(repair.file) if repair.file.startswith(os.getcwd() + os.sep) else repair.file
    return f"{file}:{repair.line}"


def inline(value: object) -> str:
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
    """The text with each run of white space replaced by one space."""
    return " ".join(text.split())


def control_summary(control: Control) -> str:
    """How many mutants the check killed: "23 of 23 mutants killed"."""
    killed = sum(control.killed.values())
    same = control.equivalent
    equivalent = f" ({same} more compute{'s' * (same == 1)} the same numbers)" if same else ""
    return f"{killed} of {killed + len(control.survived)} mutants killed{equivalent}"


def _wrapped(lines: Sequence[str], width: int | None) -> Iterator[str]:
    """Each line broken between words; what follows its first two spaces, or else two columns, is the indentation."""
    for line in lines:
        if width is None or len(line) <= width:
            yield line
            continue
        lead = re.match(r" *\S+  ", line)
        indent = " " * (len(lead[0]) if lead else len(line) - len(line.lstrip()) + 2)
        yield from textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _repairs(repairs: Sequence[Repair], width: int | None) -> Iterator[str]:
    for repair in repairs:
        where = f"repair: {place(repair)}" + f"  `{one_line(repair.source)}`" * bool(repair.source)
        change = f"is right with {one_line(repair.change)}"
        if width is None or len(where) + 2 + len(change) <= width:
            yield f"{where}  {change}"
        else:
            yield where
            yield from _wrapped([f"        {change}"], width)


def _rows(rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """The table; under each row that does not pass, its diagnosis and the values at its worst element."""
    table = [cells(row) for row in rows]
    space = {heading: max(len(heading), *(len(row[heading]) for row in table)) for heading in TABLE}
    gap = 2
    if width is not None:
        free = width - sum(space.values()) + space["leaf"]  # for the leaf and the gaps
        gap = 2 if free - 2 * (len(TABLE) - 1) >= min(10, space["leaf"]) else 1
        space["leaf"] = min(space["leaf"], max(10, free - gap * (len(TABLE) - 1)))
    indent = " " * (space["status"] + gap)

    def line(texts: dict[str, str]) -> str:
        aligned = (texts[h].ljust(space[h]) if h in LEFT else texts[h].rjust(space[h]) for h in TABLE)
        return (" " * gap).join(aligned)

    yield line({heading: heading for heading in TABLE})
    for row, texts in zip(rows, table, strict=True):
        first, *others = _folded(texts["leaf"], space["leaf"])
        yield line(texts | {"leaf": first})
        yield from (indent + other for other in others)
        below = [explanation(row)] if explanation(row) else []
        if row.status != "PASS":
            # No break between a heading and its value.
            below += [", ".join(f"{heading}\xa0{texts[heading]}" for heading in VALUES if texts[heading] != "-")]
            if row.shape and row.came is None:
                below += [f"at {texts['at']}, the worst element; {texts['bad %']} % are outside the tolerance"]
        for sentence in below:
            for part in textwrap.wrap(sentence, (width or 10**9) - len(indent), break_long_words=False):
                yield indent + part.replace("\xa0", " ")


def _folded(name: str, width: int) -> list[str]:
    """A leaf's name in lines of at most `width`, broken after dots and underscores where it has them."""
    lines = [""]
    for piece in re.findall(r"[^._ ]*[._ ]?", name):
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return lines


def _contracts(contracts: Sequence[Contract]) -> Iterator[str]:
    if not contracts:
        return
    passed = [one_line(contract.name) for contract in contracts if contract.status == "PASS"]
    skipped = [
        one_line(contract.name) + f" ({one_line(contract.detail)})" * bool(contract.detail)
        for contract in contracts
        if contract.status == "SKIPPED"
    ]
    line = f"contracts: {len(passed)} of {len(contracts) - len(skipped)} passed{': ' * bool(passed)}{', '.join(passed)}"
    yield line + (f"; {len(skipped)} skipped: {', '.join(skipped)}" if skipped else "")
    for contract in contracts:
        if contract.status not in ("PASS", "SKIPPED"):
            detail = f": {one_line(contract.detail)}" if contract.detail else ""
            yield f"  {contract.status}  {one_line(contract.name)}{detail}"


def _control(control: Control | None) -> Iterator[str]:
    if control is None:
        return
    yield f"control: {control_summary(control)}"
    if control.survived:
        yield f"  {len(control.survived)} {SURVIVED}:"
    for description in control.survived[:SHOWN]:
        yield f"    {one_line(description)}"
    if len(control.survived) > SHOWN:
        yield f"    and {len(control.survived) - SHOWN} more"
