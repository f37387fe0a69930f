"""The study of two-phase updates runs, and the page shows the figures of the run that is kept."""

import json

import pytest
import two_phase_memory
from conftest import REPOSITORY

import handgrad as hg


def test_few_rows_need_less_memory_and_change_nothing(tmp_path):
    options = two_phase_memory.Options(width=64, depth=16, batches=(2,), repeats=1, out=tmp_path / "figures.json")
    rows = two_phase_memory.run(options)
    assert [row["optimizer"] for row in rows] == ["sgd", "adam"]
    for row in rows:
        assert row["temp_ratio"] < 0.5
        assert row["apart_float32"] < 1e-4
        assert row["apart_float64"] < 1e-11
    assert json.loads(options.out.read_text())["rows"] == rows


def test_the_page_shows_the_figures_of_the_run():
    page = (REPOSITORY / "docs/two_phase.md").read_text()
    figures = json.loads((REPOSITORY / "docs/results/two_phase_memory.json").read_text())
    for row in figures["rows"]:
        ratios = f"{row['temp_ratio']:.3f} | {row['time_ratio']:.2f}"
        differences = f"{row['apart_float32']:.0e} | {row['apart_float64']:.0e}"
        assert f"| {row['optimizer']} | {row['batch']} | {ratios} | {differences} |" in page


def test_bad_input(tmp_path):
    with pytest.raises(hg.InputError, match=r"^two_phase_memory: depth must be a positive integer, got 0"):
        two_phase_memory.run(two_phase_memory.Options(depth=0, out=tmp_path / "untouched.json"))
