"""The study of what curvature costs runs, and docs/curvature.md shows what it found."""

import json

import curvature_cost
import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_a_tiny_run(tmp_path):
    figures = curvature_cost.run(curvature_cost.Options(("mlp",), 8, 32, repeats=2, out=tmp_path / "cost.json"))
    assert json.loads((tmp_path / "cost.json").read_text())["figures"] == figures
    assert figures["mlp"]["gradient"]["ratio"] == 1
    assert all(row["milliseconds"] > 0 for row in figures["mlp"].values())
    assert figures["mlp"]["GGN product"]["kept_bytes"] > 0


def test_the_page_shows_the_figures_of_the_run():
    figures = json.loads((REPOSITORY / "docs/results/curvature_cost.json").read_text())["figures"]
    page = (REPOSITORY / "docs/curvature.md").read_text()
    mlp, block = figures.values()
    for name, row in mlp.items():
        assert f"| {name} | {row['ratio']:.2f} | {block[name]['ratio']:.2f} |" in page
