"""An explanation as text that fits a terminal of 80 columns."""

import functools
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from handgrad.explain.document import Document, Element, Formula, Heading, Matrices, Named, Paragraph, Table, Verbatim
from handgrad.explain.matrix import Shown, about, numbers, shape_text, shown

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
        text = element.text.replace("⟦", "").replace("⟧", "")
        yield from map(Line, textwrap.wrap(text, room, break_on_hyphens=False))
    elif isinstance(element, Formula):
        for text in broken(element.text, inner):
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
    pieces: list[str] = []
    for piece in re.split(r"\s{3,}", line.strip()):
        if pieces and pieces[-1].count("[") > pieces[-1].count("]"):  # a matrix in brackets stays together
            pieces[-1] += f"   {piece}"
        else:
            pieces.append(piece)
    return [lead + text for piece in pieces for text in broken(piece, room - len(lead))]


def broken(formula: str, room: int) -> list[str]:
    """A formula in lines that fit: broken after commas and before + and − outside of brackets, if that is enough."""
    kept, depth = list(formula), 0
    for i, letter in enumerate(formula):
        depth += (letter in "([⟨") - (letter in ")]⟩")
        if letter == " " and not (depth <= 0 and (formula[i - 1] in ",;" or formula[i + 1 : i + 2] in ("+", "−"))):
            kept[i] = "\u00a0"
    wrap = functools.partial(
        textwrap.wrap, width=room, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False
    )
    found = wrap("".join(kept))
    return [
        line.replace("\u00a0", " ") for line in (found if max(map(width, found), default=0) <= room else wrap(formula))
    ]


def _flow(matrices: Matrices, room: int) -> Iterator[str]:
    """Blocks from left to right, as many as fit beside each other."""
    signs = ("", *matrices.signs) if matrices.signs else [""] * len(matrices.items)
    row: list[list[str]] = []
    for sign, item in zip(signs, matrices.items, strict=True):
        block = _block(item, room - len(sign) - 1)
        if sign:
            rows = [i for i, line in enumerate(block) if line[0] in "[⎡⎢⎣"]
            above = [" " * len(sign)] * rows[(len(rows) - 1) // 2]
            block = _beside([[*above, sign], block], 1)
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
    part = shown(item.value)
    body = _stacked(part, room)
    if said := about(part):
        body += textwrap.wrap(said, max(len(body[0]), min(room, 48)))
    size = max(map(width, (title, *body)))
    return [padded(line, size) for line in (title, *body)]


def _stacked(part: Shown, room: int) -> list[str]:
    """A matrix in brackets; where it is too wide, its columns in groups, one below the other."""
    cells = numbers(part.rows)
    if part.more_columns:
        cells = [[*row, "…"] for row in cells]
    if part.more_rows:
        cells = [*cells, ["⋮"] * len(cells[0])]
    bodies = {"": _bracketed(cells)}
    for groups in range(2, len(cells[0]) + 1 if cells else 0):
        if all(width(body[0]) <= room for body in bodies.values()):
            break
        bodies = {}
        for columns in np.array_split(np.arange(len(cells[0])), groups):
            first, last = columns[0] + 1, columns[-1] + 1
            title = f"columns {first} to {last}" if first < last else f"column {first}"
            bodies[title] = _bracketed([row[first - 1 : last] for row in cells])
    return [line for title, body in bodies.items() for line in ([title, *body] if title else body)]


def _bracketed(cells: list[list[str]]) -> list[str]:
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
