"""The study of what folds cost runs, and the page shows the figures of the run that is kept."""

import json

import per_example_cost
import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_every_way_is_measured(tmp_path):
    options = per_example_cost.Options(
        repeats=1, batch=4, width=8, block_batch=2, features=8, tokens=(2, 8), out=tmp_path / "figures.json"
    )
    figures = per_example_cost.run(options)
    assert json.loads(options.out.read_text()).items() >= figures.items()
    for part in ("mlp", "block"):
        assert {"gradient", "norms", "clipped", "norms, vmap(jax.grad)"} <= figures[part].keys()
        assert all(way["ms"] > 0 and way["temp_bytes"] > 0 for way in figures[part].values())
        assert figures[part]["gradient"]["ratio"] == 1
    assert [(row["tokens"], row["chosen"]) for row in figures["tokens"]] == [(2, "gram"), (8, "direct")]


def test_the_page_shows_the_figures_of_the_run():
    page = (REPOSITORY / "docs/factors.md").read_text()
    figures = json.loads((REPOSITORY / "docs/results/per_example_cost.json").read_text())
    for part in ("mlp", "block"):
        for name, way in figures[part].items():
            assert f"| {name} | {way['ratio']:.2f} | {way['temp_bytes']:,} |" in page
    for row in figures["tokens"]:
        ratios = " | ".join(f"{row['ways'][way]['ratio']:.2f}" for way in ("gram", "direct", "vmap(jax.grad)"))
        assert f"| {row['tokens']} | {row['chosen']} | {ratios} |" in page
