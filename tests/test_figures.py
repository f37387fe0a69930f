"""The checked-in figures are what their scripts draw, in both color schemes."""

import importlib
import re
import sys

import pytest
from conftest import REPOSITORY

FIGURES = REPOSITORY / "docs/figures"
STEMS = sorted(path.stem for path in FIGURES.glob("*.py") if not path.name.startswith("_"))
SHORT = {"chain", "convergence_law", "outer_products", "square"}  # the others run with what is slow


def test_each_figure_has_its_script():
    assert {path.stem for path in FIGURES.glob("*.svg")} == set(STEMS)


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
