"""The checked-in figures are what their scripts draw, in both color schemes."""

import importlib
import re
import sys

import pytest
from conftest import REPOSITORY

FIGURES = REPOSITORY / "docs/figures"
STEMS = sorted(path.stem for path in FIGURES.glob("*.py") if not path.name.startswith("_"))
SHORT = {"chain", "convergence_law", "outer_products", "square"}  # the others run with what is slow


def test_each_figure_has_its_script_and_a_page():
    pages = "".join(page.read_text(encoding="utf-8") for page in FIGURES.parent.rglob("*.md"))
    assert {path.stem for path in FIGURES.glob("*.svg")} == set(STEMS)
    assert set(STEMS) <= set(re.findall(r"\bfigures/(\w+)\.svg\)", pages))


@pytest.mark.parametrize("stem", [pytest.param(s, marks=[pytest.mark.slow] * (s not in SHORT)) for s in STEMS])
def test_a_script_draws_its_figure(stem, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "path", [str(FIGURES), *sys.path])
    drawn = importlib.import_module(stem).draw()
    kept = (FIGURES / f"{stem}.svg").read_text(encoding="utf-8")
    made_by = r"Matplotlib v\S+,"
    if re.search(made_by, kept)[0] == re.search(made_by, drawn)[0]:
        assert drawn == kept, f"run python docs/figures/{stem}.py"
    for text in (drawn, kept):
        assert "prefers-color-scheme: dark" in text
        assert re.search(r"<title>.+</title>", text)
        assert re.search(r"<desc>.+</desc>", text)
        assert unknown_colors(text) == set()


def unknown_colors(text: str) -> set[str]:
    """Colors that stay as they are in a dark scheme."""
    style = re.search(r"<style>.*?</style>", text)[0]
    return {c for c in re.findall(r"(?:fill|stroke): (#\w+)", text.replace(style, "")) if f": {c}" not in style}


def test_colors_can_be_read_in_both_schemes(monkeypatch):
    """WCAG AA: every color as text on the paper, and the ink on the strongest tint below a number."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "path", [str(FIGURES), *sys.path])
    schemes = importlib.import_module("_style").SCHEMES
    for scheme in (0, 1):
        paper, ink = schemes["paper"][scheme], schemes["ink"][scheme]
        for role in schemes.keys() - {"paper", "panel", "line"}:
            color = schemes[role][scheme]
            assert contrast(color, paper) >= 4.5, role
            assert role == "ink" or contrast(ink, mixed(color, paper, 0.5)) >= 4.5, role


def contrast(one: str, other: str) -> float:
    """The ratio of two colors' relative luminances, as WCAG defines it."""
    low, high = sorted(luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def mixed(color: str, paper: str, share: float) -> str:
    pairs = ((int(color[i : i + 2], 16), int(paper[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * c + (1 - share) * p):02x}" for c, p in pairs)
