"""An explanation as Markdown, with mathematics in $$ blocks, and as a LaTeX document."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from handgrad.explain.document import Document, Element, Formula, Heading, Matrices, Named, Paragraph, Verbatim
from handgrad.explain.matrix import about, number, numbers, shape_text, shown

COLUMNS = 8  # of a matrix in a line, at most
BEGIN = r"""\documentclass{article}
\usepackage[a4paper, margin=15mm]{geometry}
\usepackage{amsmath, booktabs, fvextra, newunicodechar}
\usepackage{fontspec, unicode-math}  % compile with lualatex or xelatex
\setmainfont{DejaVu Serif}[Scale=0.9]
\setmonofont{DejaVu Sans Mono}[Scale=0.8]
\newunicodechar{ℓ}{\ensuremath{\ell}}
\newunicodechar{⋯}{\ensuremath{\cdots}}
\setlength{\parindent}{0pt}
\setlength{\emergencystretch}{5em}
\begin{document}
"""
SECTIONS = {1: "section", 2: "subsection", 3: "subsubsection"}
LETTERS = {
    **{"Δ": r"\Delta ", "ᵀ": r"^\top ", "*": r"^{\ast}", "∘": r"\circ ", "−": "-", "∂": r"\partial ", "⟨": r"\langle "},
    "⟩": r"\rangle ",
}
SPECIAL = {"/": r"/\allowbreak{}", "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}


def as_markdown(document: Document) -> str:
    """The document in Markdown, as code hosts and MyST render it."""
    return "\n\n".join(_markdown(element) for element in document) + "\n"


def as_latex(document: Document) -> str:
    """The document in LaTeX, ready for lualatex or xelatex."""
    return BEGIN + "\n\n".join(_latex(element) for element in document) + "\n\n\\end{document}\n"


def _markdown(element: Element) -> str:
    if isinstance(element, Heading):
        return f"{'#' * element.level} {_words(element.text)}"
    if isinstance(element, Paragraph):
        return _prose(element.text, _words)
    if isinstance(element, Formula):
        return _block(element.latex)
    if isinstance(element, Verbatim):
        return "\n".join(["```text", *element.lines, "```"])
    if isinstance(element, Matrices):
        notes = "".join(f"\n\n{note}" for note in _notes(element, str))
        return "\n\n".join(_block(row) for row in _rows(element)) + notes
    cells = [element.header, *element.rows]
    texts = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in cells]
    texts.insert(1, "|---" + "|---:" * (len(element.header) - 1) + "|")
    return "\n".join(texts)


def _latex(element: Element) -> str:
    if isinstance(element, Heading):
        return rf"\{SECTIONS[element.level]}*{{{_escaped(element.text)}}}"
    if isinstance(element, Paragraph):
        return _prose(element.text, _escaped)
    if isinstance(element, Formula):
        return f"\\[\n{element.latex}\n\\]"
    if isinstance(element, Verbatim):
        return "\n".join([r"\begin{Verbatim}[breaklines]", *element.lines, r"\end{Verbatim}"])
    if isinstance(element, Matrices):
        notes = "".join(f"\n\n{note}" for note in _notes(element, _escaped))
        return "\n\n".join(f"\\[\n{row}\n\\]" for row in _rows(element)) + notes
    columns = "l" + "r" * (len(element.header) - 1)
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in element.rows]
    header = " & ".join(map(_escaped, element.header)) + r" \\"
    return "\n".join(
        [
            r"\smallskip",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _block(latex: str) -> str:
    return f"$$\n{latex}\n$$"


def _rows(matrices: Matrices) -> Iterator[str]:
    """One line of mathematics for each matrix with a name, or one for a whole sum."""
    if not matrices.signs:
        for item in matrices.items:
            yield f"{item.latex} = {_pmatrix(item)}"
        return
    *terms, total = matrices.items
    *signs, _ = matrices.signs
    before = ["", *(sign.replace("…", r"\cdots") for sign in signs)]
    written = [f"{sign} {item.latex}".strip() for sign, item in zip(before, terms, strict=True)]
    values = [f"{sign} {_pmatrix(item)}".strip() for sign, item in zip(before, terms, strict=True)]
    first, *others = values  # each on its line: a phone is narrow
    lines = [f"{total.latex} &= {' '.join(written)}", f"&= {first}", *(rf"&\quad {value}" for value in others)]
    lines.append(f"&= {_pmatrix(total)}")
    yield "\\begin{aligned}\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def _pmatrix(item: Named) -> str:
    if not np.ndim(item.value):
        return latex_number(number(float(item.value)))
    part = shown(item.value)
    cells = [[latex_number(entry) for entry in row] for row in numbers(part.rows)]
    if part.more_columns:
        cells = [[*row, r"\cdots"] for row in cells]
    if part.more_rows:
        cells = [*cells, [r"\vdots"] * len(cells[0])]
    count = len(cells[0]) if cells else 0
    groups = np.array_split(np.arange(count), max(1, -(-count // COLUMNS)))
    inside = [r" \\ ".join(" & ".join(row[k] for k in columns) for row in cells) for columns in groups]
    if len(inside) == 1:
        return f"\\begin{{pmatrix}} {inside[0]} \\end{{pmatrix}}"
    pieces = [f"\\begin{{matrix}} {piece} \\end{{matrix}}" for piece in inside]
    open_, close = [r"\left(", *[r"\left."] * (len(pieces) - 1)], [*[r"\right."] * (len(pieces) - 1), r"\right)"]
    lines = [f"& {a} {piece} {b}" for a, piece, b in zip(open_, pieces, close, strict=True)]
    return "\\begin{aligned}[t]\n" + " \\\\\n".join(lines) + "\n\\end{aligned}"


def latex_number(text: str) -> str:
    """A number in LaTeX: 1.2e-05 with a power of ten."""
    if text in ("nan", "inf", "-inf"):
        return {"nan": r"\text{nan}", "inf": r"\infty", "-inf": r"-\infty"}[text]
    match = re.fullmatch(r"(.*)e([+-]\d+)", text)
    return rf"{match[1]} \cdot 10^{{{int(match[2])}}}" if match else text


def _notes(matrices: Matrices, escaped: Callable[[str], str]) -> Sequence[str]:
    """What is said below of matrices of which a corner is shown."""
    return [
        escaped(f"{item.text} is {shape_text(item.value.shape)}, {said}.")
        for item in matrices.items
        if (said := about(shown(item.value)))
    ]


def _prose(text: str, escaped: Callable[[str], str]) -> str:
    """A paragraph: what is between ⟦ and ⟧ is mathematics."""
    words, *rest = text.split("⟦")
    pieces = [piece.split("⟧") for piece in rest]
    return escaped(words) + "".join(f"${_letters(symbol)}${escaped(after)}" for symbol, after in pieces)


def _letters(text: str) -> str:
    """A symbol or a product of some, in LaTeX."""
    text = "".join(LETTERS.get(letter, letter) for letter in unicodedata.normalize("NFD", text)).strip()
    text = re.sub("(.)\u0307", r"\\dot{\1}", text)
    return re.sub(r"^1( |$)", r"\\mathbf 1\1", text)


def _words(text: str) -> str:
    """A sentence for Markdown: no letter of it is markup."""
    return re.sub(r"([*_\\`<|])", r"\\\1", text)


def _escaped(text: str) -> str:
    """A sentence for LaTeX."""
    return "".join(SPECIAL.get(c, "\\" + c if c in "{}_%&#$" else c) for c in text)
