"""The study of reversible blocks runs, and finds what docs/derivations/structure/reversible.md claims."""

import json

import pytest
import reversible_memory
from conftest import REPOSITORY


@pytest.mark.slow
def test_memory_is_the_same_at_any_depth_and_rounding_stays_near_the_plain_forms(tmp_path):
    options = reversible_memory.Options(depths=(4, 16), width=16, batch=256, out=tmp_path / "figures.json")
    four, sixteen = reversible_memory.run(options)
    assert sixteen["sequence"]["temp_bytes"] < 1.05 * four["sequence"]["temp_bytes"]
    assert sixteen["repeat"]["temp_bytes"] > 3 * four["repeat"]["temp_bytes"]
    for row in (four, sixteen):
        assert row["sequence"]["error"] < 10 * row["repeat"]["error"] < 1e-4
    assert json.loads(options.out.read_text())["rows"] == [four, sixteen]


def test_the_page_shows_the_figures_of_the_run():
    page = (REPOSITORY / "docs/derivations/structure/reversible.md").read_text()
    figures = json.loads((REPOSITORY / "docs/results/reversible_memory.json").read_text())
    assert [row["depth"] for row in figures["rows"]] == [4, 16, 64]
    for row in figures["rows"]:
        ways = [row[way] for way in reversible_memory.WAYS]
        assert f"| {row['depth']} | " + " | ".join(f"{way['temp_bytes']:,}" for way in ways) + " |" in page
        assert f"| {row['depth']} | " + " | ".join(f"{way['error']:.1e}" for way in ways) + " |" in page
