"""How the figures look: one palette in two schemes, matrices of colored cells, text as paths, the same bytes each time.

A figure is drawn in CSS pixels, y downwards, in the light scheme's colors. `save` adds a style sheet that replaces each
of them by its counterpart where the reader prefers a dark scheme, so that one file serves both; the paper is drawn
too, so that a figure is readable on a page of the other scheme.
"""

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

SCHEMES = {  # role: (light, dark); every light color once, since the style sheet finds it by its name
    "paper": ("#ffffff", "#131416"),
    "panel": ("#f3f5f8", "#1e2126"),
    "line": ("#c3cad2", "#4b525b"),
    "muted": ("#57606a", "#a8b0b9"),
    "ink": ("#1f2328", "#e8eaed"),
    "blue": ("#1d5fd1", "#7fb2ff"),
    "orange": ("#b94a00", "#ffa657"),
    "green": ("#147a3c", "#56cb7d"),
    "purple": ("#7a3fc7", "#c4a0ff"),
    "red": ("#c1272d", "#ff8580"),
}
COLOR = SimpleNamespace(**{role: light for role, (light, _) in SCHEMES.items()})
EXAMPLES = (COLOR.blue, COLOR.orange, COLOR.green, COLOR.purple)  # one for each example, or each time step

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "handgrad",  # ids that don't change from run to run
    "svg.fonttype": "path",
    "mathtext.fontset": "cm",  # the letters of the pages' formulas
    "font.family": "DejaVu Sans",
    "font.size": 13,
    "text.color": COLOR.ink,
    "axes.edgecolor": COLOR.line,
    "axes.labelcolor": COLOR.ink,
    "axes.facecolor": COLOR.paper,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=EXAMPLES),
    "figure.facecolor": COLOR.paper,
    "figure.dpi": 72,  # a point is a pixel
    "grid.color": COLOR.line,
    "grid.alpha": 0.5,
    "lines.linewidth": 2,
    "xtick.color": COLOR.line,
    "ytick.color": COLOR.line,
    "xtick.labelcolor": COLOR.muted,
    "ytick.labelcolor": COLOR.muted,
    "legend.frameon": False,
}
rcParams.update(STYLE)


def style_sheet() -> str:
    """What turns the light colors into the dark ones."""
    rules = [
        f'[style*="{kind}: {light}"]{{{kind}:{dark} !important}}'
        for light, dark in SCHEMES.values()
        for kind in ("fill", "stroke")
    ]
    return "<style>@media (prefers-color-scheme: dark){" + "".join(rules) + "}</style>"


def svg(figure: Figure, title: str, description: str) -> str:
    """The figure as SVG: with title and description for screen readers, and colors for both schemes."""
    stream = StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Title": title, "Description": description})
    width, height = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    text = stream.getvalue().replace(f'width="{width}pt" height="{height}pt"', f'width="{width}" height="{height}"')
    text = re.sub(r' d="[^"]*"', rounded, text)
    head, sep, rest = text.partition("<metadata>")  # behind the title, which savefig writes
    words = f"<desc>{description}</desc>\n {style_sheet()}\n "
    return "\n".join(line.rstrip() for line in (head + words + sep + rest).splitlines()) + "\n"


def rounded(path: re.Match) -> str:
    """A path in hundredths of a pixel: the last digits of float64 change no byte."""
    return re.sub(r"-?\d+\.\d+", lambda n: f"{round(float(n[0]), 2) + 0.0:g}", path[0]).replace("\n", " ")


def save(script: str, text: str) -> None:
    """Write a figure as `<stem>.svg` beside its script."""
    Path(script).with_suffix(".svg").write_text(text, encoding="utf-8")


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, and axes that cover it in pixels, y downwards."""
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return figure, axes


def number(value: float, digits: int = 2) -> str:
    """The value as printed in a cell, with a minus sign instead of a hyphen, and no negative zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")


def cells(
    axes: Axes,
    x: float,
    y: float,
    values: np.ndarray,
    hues: str | Sequence[Sequence[str]],
    *,
    size: tuple[float, float] = (44, 28),
    largest: float | None = None,
    digits: int | None = 2,
    fontsize: float = 12,
) -> tuple[float, float]:
    """A matrix whose cells are the more colored, the larger their numbers; returns the right and the lower edge.

    Args:
      hues: one color, or one for each cell.
      largest: the number of full color; None is the largest of these.
      digits: decimals of the printed numbers; None prints none.
    """
    values = np.atleast_2d(np.asarray(values, float))
    rows, columns = values.shape
    hue_of = np.broadcast_to(np.asarray(hues), values.shape)
    largest = largest or float(np.abs(values).max()) or 1.0
    width, height = size
    for i in range(rows):
        for j in range(columns):
            corner = (x + j * width, y + i * height)
            least, most = (0.08, 0.5) if digits is not None else (0.15, 0.8)  # a number must stay readable on it
            share = min(abs(values[i, j]) / largest, 1.0)
            strength = round(least + (most - least) * share, 2) if share else 0.05
            tint: dict[str, Any] = {"facecolor": str(hue_of[i, j]), "alpha": strength, "linewidth": 0, "clip_on": False}
            axes.add_patch(Rectangle(corner, width - 1.5, height - 1.5, **tint))
            if digits is not None:
                middle = (corner[0] + width / 2 - 0.75, corner[1] + height / 2 - 0.75)
                say(axes, *middle, number(values[i, j], digits), fontsize=fontsize)
    return x + columns * width, y + rows * height


def say(axes: Axes, x: float, y: float, text: str, **options: Any) -> None:
    """Text, centered at the point unless `ha` and `va` say otherwise."""
    options = {"ha": "center", "va": "center_baseline", "color": COLOR.ink} | options
    axes.text(x, y, text, **options)


def outline(axes: Axes, x: float, y: float, width: float, height: float, color: str = COLOR.ink) -> None:
    """A frame around what a sentence speaks of."""
    frame: dict[str, Any] = {"fill": False, "edgecolor": color, "linewidth": 1.8, "clip_on": False}
    axes.add_patch(Rectangle((x - 0.75, y - 0.75), width, height, **frame))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, **options: Any) -> None:
    """A straight arrow, or a curved one with `connectionstyle`."""
    options = {"linewidth": 2, "mutation_scale": 13, "shrinkA": 0, "shrinkB": 0} | options
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", color=color, clip_on=False, **options))


def box(
    axes: Axes, x: float, y: float, width: float, height: float, color: str, *, fill: float = 0.12, **line: Any
) -> None:
    """A rounded box with a tint of its outline's color."""
    where = ((x, y), width, height, "round,pad=0,rounding_size=6")
    axes.add_patch(FancyBboxPatch(*where, facecolor=color, alpha=fill, linewidth=0, clip_on=False))
    line = {"linewidth": 1.4} | line
    axes.add_patch(FancyBboxPatch(*where, fill=False, edgecolor=color, clip_on=False, **line))


def plots(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side, in pixels."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    for each in axes:
        each.grid(visible=True, linewidth=0.8)
        each.set_axisbelow(True)
        each.tick_params(labelsize=11.5)
    return figure, axes


def tinted(values: np.ndarray) -> np.ndarray:
    """An image of numbers in [-1, 1], as red, green, blue, alpha: blue above zero, orange below, on any paper."""
    values = np.asarray(values, float)[..., None]
    hue = np.where(values < 0, [0.85, 0.43, 0.1], [0.27, 0.5, 0.93])
    return np.concatenate([hue, np.clip(np.abs(values), 0, 1)], axis=-1)


class Picture:
    """A figure as a notebook shows it."""

    def __init__(self, figure: Figure, title: str) -> None:
        self.text = svg(figure, title, title)

    def _repr_svg_(self) -> str:
        return self.text[self.text.index("<svg") :]
