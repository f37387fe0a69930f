"""What an explanation is written as, before it is text, Markdown or LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

from handgrad.explain.worked import Matrix

MORE_AXES = "Of an array with more than two axes, all but the last run down the rows."


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more."""

    text: str


@dataclass(frozen=True)
class Formula:
    """Mathematics on a line of its own."""

    text: str
    latex: str


@dataclass(frozen=True)
class Verbatim:
    """Lines as they stand in a docstring."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """A matrix and its name, in Unicode and in LaTeX."""

    text: str
    latex: str
    value: Matrix


@dataclass(frozen=True)
class Matrices:
    """Matrices side by side; `signs` stand before each but the first: "+" or "=", or nothing."""

    items: tuple[Named, ...]
    signs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Numbers and words in columns."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Element = Heading | Paragraph | Formula | Verbatim | Matrices | Table
Document = Sequence[Element]
