"""The study of the two-phase update runs, and finds what docs/two_phase.md claims."""

import json

import two_phase_memory
from conftest import REPOSITORY


def test_a_deep_stack_takes_a_part_of_the_memory_and_ends_at_the_same_parameters(tmp_path):
    options = two_phase_memory.Options(width=64, depth=24, batches=(4,), steps=3, out=tmp_path / "figures.json")
    rows = two_phase_memory.run(options)
    assert [row["optimizer"] for row in rows] == ["sgd", "adam"]
    for row in rows:
        assert row["memory_ratio"] < 0.5
        assert row["distance"] < 1e-6
    assert json.loads(options.out.read_text())["rows"] == rows


def test_the_page_shows_the_figures_of_the_run_and_the_bar_is_met():
    """At 16 examples: a quarter of the memory, at most a tenth more time, the same parameters."""
    page = (REPOSITORY / "docs/two_phase.md").read_text()
    for row in json.loads((REPOSITORY / "docs/results/two_phase_memory.json").read_text())["rows"]:
        memory = " | ".join(f"{row[way]['temp_bytes']:,}" for way in two_phase_memory.WAYS)
        figures = f"{row['memory_ratio']:.3f} | {row['time_ratio']:.2f} | {row['distance']:.1e}"
        assert f"| {row['optimizer']} | {row['batch']} | {memory} | {figures} |" in page
        if row["batch"] == 16:
            assert row["memory_ratio"] <= 0.25
            assert row["time_ratio"] <= 1.10
            assert row["distance"] <= 1e-6
