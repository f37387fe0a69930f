"""A report as one self-contained page: no network, no scripts, pictures embedded."""

import base64
import io
import linecache
import math
from typing import Any

import numpy as np

from handgrad.crosscheck.report.report import Repair, Report, Row
from handgrad.crosscheck.report.text import LEFT, SURVIVED, VALUES, cells, control_summary, explanation, inline, place
from handgrad.pages import environment

TEMPLATE = "report.html.j2"


def render(report: Report) -> str:
    """The page as HTML.

    Raises:
      ModuleNotFoundError: without the `report` extra.
    """
    pages = environment("to_html", "handgrad.crosscheck.report", "matplotlib")
    from markupsafe import Markup  # which jinja2 requires

    pages.filters["inline"] = inline
    # A leaf's path may be broken after a dot.
    pages.filters["breakable"] = lambda path: Markup.escape(path).replace(".", Markup(".<wbr>"))
    return pages.get_template(TEMPLATE).render(
        report=report,
        rows=[(row, cells(row), explanation(row), picture(row)) for row in report.rows],
        repairs=[(repair, place(repair), source_lines(repair)) for repair in report.repair],
        control=control_summary(report.control) if report.control else "",
        survived=SURVIVED,
        left=LEFT,
        values=VALUES,
    )


def source_lines(repair: Repair, around: int = 4) -> list[tuple[int, str]]:
    """(number, text) of the repair's line and of `around` lines before and after it; its line alone where the file has
    changed or can't be read."""
    linecache.checkcache(repair.file)
    if repair.source and linecache.getline(repair.file, repair.line).strip() == repair.source.strip():
        numbers = range(max(1, repair.line - around), repair.line + around + 1)
        lines = [(n, linecache.getline(repair.file, n)) for n in numbers]
        return [(n, text.rstrip().expandtabs()) for n, text in lines if text]  # "" after the end of the file
    return [(repair.line, repair.source)] if repair.source else []


def picture(row: Row) -> str:
    """The heat map of |error| / tolerance as a PNG in base64: gray within the tolerance, colors on a log scale above,
    black where not finite; "" for fewer than two cells."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heat = np.array(row.heat, np.float64)
    if heat.size < 2:
        return ""
    finite = heat[np.isfinite(heat)]
    norm = LogNorm(1, max(10.0, float(finite.max(initial=1.0))))

    # The picture grows with the number of cells up to the width of a page.
    height, width = heat.shape
    side = min(0.5, 6 / width, 4.5 / height)
    size = (max(2.0, side * width) + 2.0, max(1.3, side * height) + 0.9)
    # A Figure made without pyplot draws with Agg and leaves the caller's figures and backend alone.
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    shown = axes.imshow(
        np.ma.masked_invalid(np.maximum(heat, 0.5)),  # zero has no logarithm: it would be masked
        norm=norm,
        cmap=_colors(),
        aspect="auto",
        interpolation="nearest",
        extent=_extent(row),
    )
    down, across = axis_names(row.shape)
    axes.set(xlabel=across, ylabel=down)
    for axis, name in ((axes.xaxis, across), (axes.yaxis, down)):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axis.set_visible(bool(name))
    figure.colorbar(shown, ax=axes, extend="min", label="|error| / tolerance")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return base64.b64encode(out.getvalue()).decode("ascii")


def axis_names(shape: tuple[int, ...]) -> tuple[str, str]:
    """The labels down and across a heat map: the last axis is across, all others flattened are down; "" for none."""
    last = len(shape) - 1
    down = "" if last < 1 else "axis 0" if last == 1 else f"axes 0 to {last - 1}, flattened"
    return down, f"axis {last}" if shape else ""


def _extent(row: Row) -> tuple[float, float, float, float]:
    """The picture's edges in elements of the leaf, so that ticks are indices where a cell stands for several."""
    across = row.shape[-1] if row.shape else 1
    return -0.5, across - 0.5, math.prod(row.shape[:-1]) - 0.5, -0.5


def _colors() -> Any:
    from matplotlib import colormaps

    return colormaps["YlOrRd"].with_extremes(under="#d5d9de", bad="black")
