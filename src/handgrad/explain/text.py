"""An explanation as text that fits a terminal of 80 columns."""

import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from handgrad.explain.document import Document, Element, Formula, Heading, Matrices, Named, Paragraph, Table, Verbatim
from handgrad.explain.matrix import about, numbers, shape_text, shown, two_dimensional

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80
INDENT = 2
GAP = 3


class Line(NamedTuple):
    """A line and how it is printed: a style of rich, or ""."""

    text: str
    style: str = ""


def as_text(document: Document, room: int = WIDTH) -> str:
    """The document in plain text."""
    return "\n".join(line.text for line in lines(document, room)) + "\n"


def show(document: Document, console: "Console") -> None:
    """Print a document: titles bold, equations in color."""
    from rich.text import Text

    for line in lines(document, max(40, min(console.width, WIDTH))):
        console.print(Text(line.text, line.style), soft_wrap=True)


def lines(document: Document, room: int = WIDTH) -> list[Line]:
    """The lines of a document, none of them wider than `room`."""
    found: list[Line] = []
    for element in document:
        if isinstance(element, Heading) and found:
            found.append(Line(""))
        found += [line._replace(text=line.text.rstrip()) for line in _lines(element, room)]
    return found


def _lines(element: Element, room: int) -> Iterator[Line]:
    inner = room - INDENT
    if isinstance(element, Heading):
        for text in textwrap.wrap(element.text, room):
            yield Line(text, "bold")
        if element.level == 1:
            yield Line("═" * min(room, len(element.text)), "bold")
        elif element.level == 2:
            yield Line("─" * min(room, len(element.text)), "bold")
    elif isinstance(element, Paragraph):
        yield from map(Line, textwrap.wrap(element.text, room, break_on_hyphens=False))
    elif isinstance(element, Formula):
        for text in textwrap.wrap(element.text, inner, subsequent_indent="    ", break_on_hyphens=False):
            yield Line(" " * INDENT + text, "cyan")
    elif isinstance(element, Verbatim):
        for line in element.lines:
            for text in _wrapped(line, inner):
                yield Line(" " * INDENT + text, "cyan")
    elif isinstance(element, Matrices):
        for text in _flow(element, inner):
            yield Line(" " * INDENT + text)
    else:
        yield from _table(element, inner)


def _wrapped(line: str, room: int) -> list[str]:
    """A docstring's line, broken between its formulas where it is too long."""
    if width(line) <= room:
        return [line]
    lead = line[: len(line) - len(line.lstrip())]
    pieces = re.split(r"\s{3,}", line.strip())
    wrapped = [
        textwrap.wrap(piece, room - len(lead), subsequent_indent="    ", break_on_hyphens=False) for piece in pieces
    ]
    return [lead + text for piece in wrapped for text in piece]


def _flow(matrices: Matrices, room: int) -> Iterator[str]:
    """Blocks from left to right, as many as fit beside each other."""
    signs = ("", *matrices.signs) if matrices.signs else [""] * len(matrices.items)
    row: list[list[str]] = []
    for sign, item in zip(signs, matrices.items, strict=True):
        block = _block(item, room - len(sign) - 1)
        if sign:
            block = _beside([[" " * len(sign), sign], block], 1)
        if row and sum(width(b[0]) + GAP for b in row) + width(block[0]) > room:
            yield from _beside(row, GAP)
            row = []
        row.append(block)
    if row:
        yield from _beside(row, GAP)


def _block(item: Named, room: int) -> list[str]:
    """A matrix in brackets below its name and shape; every line of the same length."""
    shape = shape_text(item.value.shape)
    title = f"{item.text}  {shape}" if shape else item.text
    columns = None
    while True:
        part = shown(item.value, columns)
        body = _bracketed(numbers(part.rows), part)
        if len(body[0]) <= room or part.rows.shape[1] == 1:
            break
        columns = part.rows.shape[1] - 1
    if said := about(part):
        body += textwrap.wrap(said, max(len(body[0]), min(room, 48)))
    elif part.more_columns:
        body.append(f"{two_dimensional(item.value).shape[1]} columns")
    size = max(map(width, (title, *body)))
    return [padded(line, size) for line in (title, *body)]


def _bracketed(cells: list[list[str]], part: NamedTuple) -> list[str]:
    if part.more_columns:  # type: ignore[attr-defined]
        cells = [[*row, "…"] for row in cells]
    if part.more_rows:  # type: ignore[attr-defined]
        cells = [*cells, ["⋮"] * len(cells[0])]
    if not cells or not cells[0]:
        return ["[ ]"]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    inside = ["  ".join(cell.rjust(size) for cell, size in zip(row, widths, strict=True)) for row in cells]
    if len(inside) == 1:
        return [f"[ {inside[0]} ]"]
    left, right = "⎡" + "⎢" * (len(inside) - 2) + "⎣", "⎤" + "⎥" * (len(inside) - 2) + "⎦"
    return [f"{a} {line} {b}" for a, line, b in zip(left, inside, right, strict=True)]


def _beside(blocks: Sequence[list[str]], gap: int) -> list[str]:
    height = max(map(len, blocks))
    filled = [[*block, *[" " * width(block[0])] * (height - len(block))] for block in blocks]
    return [(" " * gap).join(parts) for parts in zip(*filled, strict=True)]


def _table(table: Table, room: int) -> Iterator[Line]:
    cells = [table.header, *table.rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    too_wide = sum(widths) + 2 * (len(widths) - 1) - room
    if too_wide > 0:
        widths[0] = max(8, widths[0] - too_wide)
    for i, row in enumerate(cells):
        first = row[0] if width(row[0]) <= widths[0] else row[0][: widths[0] - 1] + "…"
        others = [padded(cell, size, left=True) for cell, size in zip(row[1:], widths[1:], strict=True)]
        yield Line(" " * INDENT + "  ".join([padded(first, widths[0]), *others]), "bold" if i == 0 else "")


def width(text: str) -> int:
    """Columns of a terminal that a text takes: marks above a letter take none."""
    return sum(not unicodedata.combining(letter) for letter in text)


def padded(text: str, size: int, left: bool = False) -> str:
    """A text with spaces on one side, as wide as `size`."""
    spaces = " " * (size - width(text))
    return spaces + text if left else text + spaces
