"""A report as one page that needs nothing beside it: no network, no scripts, pictures inside."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from handgrad.crosscheck.report.report import Report, Row
from handgrad.crosscheck.report.text import LEFT, VALUES, cells, control_summary, explanation, inline

TEMPLATE = "report.html.j2"
NEEDED = ("jinja2", "matplotlib")


def write(report: Report, path: Path) -> Path:
    """Write the page to `path`, whose folder is there, and return `path`. An older page gives way to it.

    Raises:
      OSError: the file can't be written; the message names it.
      ModuleNotFoundError: without the `report` extra.
    """
    page = render_page(report)  # before the file is opened: where this fails, an older page stays whole
    try:
        path.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")
    except OSError as error:
        raise OSError(error.errno, f"to_html: the page can't be written ({error.strerror})", str(path)) from None
    return path


def render_page(report: Report) -> str:
    """The page, as text.

    Raises:
      ModuleNotFoundError: without the `report` extra.
    """
    jinja2 = _jinja2()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("handgrad.crosscheck", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = inline
    return environment.get_template(TEMPLATE).render(
        report=report,
        rows=[(row, cells(row), explanation(row), picture(row)) for row in report.rows],
        control=control_summary(report.control) if report.control else "",
        left=LEFT,
        values=VALUES,
    )


def picture(row: Row) -> str:
    """The heat map of |error| / tolerance as a PNG in base64: cells within the tolerance are gray, the others colored
    on a log scale, and those that are not finite black; "" where there is nothing to see, one cell at most."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heat = np.array(row.heat, np.float64)
    if heat.size < 2:
        return ""
    finite = heat[np.isfinite(heat)]
    norm = LogNorm(1, max(10.0, float(finite.max(initial=1.0))))

    # The picture grows with the cells, within what a page can show.
    height, width = heat.shape
    side = min(0.5, 6 / width, 4.5 / height)
    size = (max(2.0, side * width) + 2.0, max(1.3, side * height) + 0.9)
    # A Figure of its own, without pyplot, draws with Agg, and leaves the caller's figures and backend alone.
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    shown = axes.imshow(
        np.ma.masked_invalid(np.maximum(heat, 0.5)),  # a zero has no logarithm, and would be taken for not finite
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
    """What runs down and across a heat map: the last axis across, all others, as one, down; "" for none."""
    last = len(shape) - 1
    down = "" if last < 1 else "axis 0" if last == 1 else f"axes 0 to {last - 1}, as one"
    return down, f"axis {last}" if shape else ""


def _extent(row: Row) -> tuple[float, float, float, float]:
    """The picture's edges in elements of the leaf: ticks are indices, however many elements a cell stands for."""
    across = row.shape[-1] if row.shape else 1
    return -0.5, across - 0.5, math.prod(row.shape[:-1]) - 0.5, -0.5


def _colors() -> Any:
    from matplotlib import colormaps

    return colormaps["YlOrRd"].with_extremes(under="#d5d9de", bad="black")


def _jinja2() -> Any:
    """Jinja2, once all that a page needs is known to be there."""
    try:
        import jinja2
        import matplotlib as mpl  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise ModuleNotFoundError(
            f"to_html: a page needs {error.name}, which isn't installed: pip install 'handgrad[report]'",
            name=error.name,
        ) from None
    return jinja2
