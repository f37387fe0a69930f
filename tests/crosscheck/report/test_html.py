"""The page: whole by itself, to the letter, with pictures that show what is wrong."""

import base64
import dataclasses
import io
import math
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from handgrad.crosscheck.report.report import Contract, Control, Repair, Report, Row

pytest.importorskip("jinja2", reason="the extra `report` isn't installed")
image = pytest.importorskip("matplotlib.image", reason="the extra `report` isn't installed")

from handgrad.crosscheck.report.html import axis_names, picture, render, source_lines  # noqa: E402 (after what it needs)

HEAT = ((0.0, 0.5), (1e3, math.nan), (math.inf, 1e6))
BAD = Row("<X>", "FAIL", (3, 2), "float64", 2.0, 1.0, 1e-15, 2e-15, (2, 1), 1.0, 2.0, 3.0, 4.0, 0.5, "a & b", "", HEAT)
GOOD = Row("b", "PASS", (3,), "float32", math.nan, 0.0, 1.2e-7, math.inf, (2,), 1.0, 1.0, 1.0, None, 0.0)
REPORT = Report(
    name="<softmax>",
    verdict="FAIL",
    reason="d<X> is wrong",
    culprit="hand",
    rows=(BAD, GOOD),
    contracts=(Contract("linear", "PASS"), Contract("dtype <kept>", "FAIL", "float32 & not float64")),
    kinks=("a <kink>",),
    control=Control({"<scale>": 4}, ("X: <survivor>",), 2),
    notes=("a <note>",),
    settings={"seed": 0, "<key>": {"jax": "<0.10>"}},
    reproduce="check(f, '<x>')",
)
VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class Page(HTMLParser):
    """All that a test asks of a page: tags with their attributes, texts, and whether every tag is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1][-1] += data
        if data.strip() and "style" not in self.open:
            self.texts.append(data.strip())


def pixels(page_picture: str) -> np.ndarray:
    return image.imread(io.BytesIO(base64.b64decode(page_picture)))[..., :3]


def share(picture: np.ndarray, color: tuple[float, float, float]) -> float:
    """The share of a picture that has this color."""
    return float(np.mean(np.all(np.abs(picture - np.array(color)) < 0.01, axis=-1)))


def test_all_of_the_report_is_there():
    page = Page(render(REPORT))
    assert {"d<X> is wrong", "Culprit: hand", "a <kink>", "a <note>", "X: <survivor>", "check(f, '<x>')"} <= set(
        page.texts
    )
    assert ("h1", {}) in page.tags
    assert page.texts[page.texts.index("<softmax>") - 1] == "FAIL"
    heading, bad, says, good, *_ = page.cells
    assert heading == [
        "status",
        "leaf",
        "array",
        "error",
        "tolerance",
        "ρ",
        "power",
        "by hand",
        "autodiff",
        "float64",
        "differences",
        "at",
        "bad %",
    ]
    numbers = ["1.0e+00", "1.0e-15", "2", "2.0e-15", "1", "2", "3", "4", "(2, 1)", "50"]
    assert bad == ["FAIL", "<X>", "float64[3,2]", *numbers]
    assert says == ["", "a & b"]
    assert good == ["PASS", "b", "float32[3]", "0", "1.2e-07", "-", "∞", "1", "1", "1", "-", "(2,)", "0"]
    assert ["FAIL", "dtype <kept>", "float32 & not float64"] in page.cells
    assert ["<scale>", "4"] in page.cells
    assert "4 of 5 mutants killed (2 more compute the same numbers)." in page.texts
    assert any(text.startswith("1 survived: they differ") for text in page.texts)
    assert page.texts[-4:] == ["seed", "0", "<key>", "jax=<0.10>"]


def test_the_page_needs_nothing_beside_it():
    text = render(REPORT)
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert [source[:22] for source in sources] == ["data:image/png;base64,"]
    assert not [word for word in ("url(", "@import", "http://", "https://") if word in text]


def test_a_repair_among_its_lines(tmp_path):
    """The line is marked between those around it, as the file has them; a file that changed shows nothing around."""
    file = tmp_path / "mine.py"
    file.write_text("".join(f"\tx{n} = {n} < 3\n" for n in range(1, 21)))
    repair = Repair(str(file), 3, "x3 = 3 < 3", "<W> transposed")
    assert source_lines(repair) == [(n, f"        x{n} = {n} < 3") for n in range(1, 8)]
    assert [n for n, _ in source_lines(dataclasses.replace(repair, line=20, source="x20 = 20 < 3"))] == [
        16,
        17,
        18,
        19,
        20,
    ]
    changed = dataclasses.replace(repair, source="y = 3")
    assert source_lines(changed) == [(3, "y = 3")]
    assert source_lines(dataclasses.replace(repair, file="<string>")) == [(3, repair.source)]
    assert source_lines(dataclasses.replace(repair, file="<string>", source="")) == []
    text = render(dataclasses.replace(REPORT, repair=(repair, changed)))
    assert text.count("<mark>") == 2
    assert "<mark>        x3 = 3 &lt; 3</mark>" in text
    assert f"<code>{file}:3</code> is right with <strong>&lt;W&gt; transposed</strong>" in text


def test_only_bad_leaves_have_a_section_and_a_picture():
    page = Page(render(REPORT))
    assert sum(tag == "section" for tag, _ in page.tags) == 1
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert sources == [f"data:image/png;base64,{picture(BAD)}"]


def test_two_rows_alike_but_for_the_picture():
    other = dataclasses.replace(BAD, heat=((1e9, 1e9),) * 3)
    page = Page(render(dataclasses.replace(REPORT, rows=(BAD, other))))
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert sources == [f"data:image/png;base64,{picture(row)}" for row in (BAD, other)]


def test_a_pass_has_no_more_than_it_needs():
    page = Page(render(Report("f", "PASS", rows=(GOOD,))))
    headings = [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert headings == ["h1", "h2"]
    assert Page(render(Report("f", "PASS"))).texts == ["PASS: f", "PASS", "f"]


def test_colors_of_the_heat_map():
    """Gray within the tolerance, zero among it; black where not finite; the largest darkest."""
    gray, black, darkest = (0xD5 / 255, 0xD9 / 255, 0xDE / 255), (0, 0, 0), (0x80 / 255, 0, 0x26 / 255)
    shown = pixels(picture(BAD))
    cell = share(shown, darkest)
    assert cell > 0.05
    assert share(shown, gray) == pytest.approx(2 * cell, rel=0.15)  # the color bar has a little of each
    assert share(shown, black) == pytest.approx(2 * cell, rel=0.25)  # and the axes are black
    calm = pixels(picture(dataclasses.replace(BAD, heat=((0.0, 0.1), (0.2, 0.3)))))
    assert share(calm, gray) > 0.3


@pytest.mark.parametrize(
    ("shape", "cells"),
    [((1000,), (1, 64)), ((500, 3), (64, 3)), ((4, 5, 6), (20, 6)), ((3, 1), (3, 1)), ((100000, 2), (64, 2))],
)
def test_pictures_of_any_shape(shape, cells):
    row = dataclasses.replace(
        BAD, shape=shape, heat=tuple(map(tuple, np.linspace(0.0, 9.0, math.prod(cells)).reshape(cells)))
    )
    height, width, _ = pixels(picture(row)).shape
    assert 200 < width < 1000
    assert 200 < height < 700


def test_where_there_is_nothing_to_draw():
    assert picture(GOOD) == ""
    assert picture(dataclasses.replace(BAD, shape=(), heat=((4.0,),))) == ""
    nothing = dataclasses.replace(BAD, heat=((math.nan, math.nan),))
    assert pixels(picture(nothing)).size


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((), ("", "")),
        ((5,), ("", "axis 0")),
        ((5, 3), ("axis 0", "axis 1")),
        ((2, 5, 3), ("axes 0 to 1, flattened", "axis 2")),
    ],
)
def test_axis_names(shape, names):
    assert axis_names(shape) == names


def test_writing_it(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("older")
    assert REPORT.to_html(str(path)) == path
    assert path.read_text(encoding="utf-8") == render(REPORT)


@pytest.mark.parametrize("where", ["missing/report.html", "."])
def test_a_path_that_cannot_be_written(tmp_path, where):
    path = tmp_path / where
    with pytest.raises(OSError, match=r"to_html: the page can't be written \(.+\)") as raised:
        REPORT.to_html(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_without_the_extra(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    path = tmp_path / "report.html"
    with pytest.raises(
        ModuleNotFoundError, match=rf"^to_html: a page needs {package}, .*: .*pip install .*\[report\]'$"
    ):
        REPORT.to_html(path)
    assert not path.exists()


def test_pyplot_is_left_alone():
    """The caller's figures and backend are theirs; and importing the module brings in neither package."""
    program = (
        "import sys\n"
        "from handgrad.crosscheck.report.html import render\n"
        "from handgrad.crosscheck.report.report import Report, Row\n"
        "print(sorted({'jinja2', 'matplotlib', 'rich'} & sys.modules.keys()))\n"
        "row = Row('W', 'FAIL', (2,), 'float32', 1., 1., 1., 1., (0,), 1., 1., 1., 1., 1., heat=((2., 3.),))\n"
        "assert 'data:image/png' in render(Report('f', 'FAIL', rows=(row,)))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["[]", "False"]
