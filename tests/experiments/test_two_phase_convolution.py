"""What two phases cost a convolutional network: the experiment runs, and the page shows its figures."""

import json

import two_phase_convolution
from conftest import REPOSITORY


def test_every_network_is_measured(tmp_path):
    options = two_phase_convolution.Options(width=4, size=4, batch=2, steps=2, out=tmp_path / "figures.json")
    rows = two_phase_convolution.run(options)
    assert [row["network"] for row in rows] == list(two_phase_convolution.networks(4))
    assert json.loads(options.out.read_text())["rows"] == rows


def test_the_page_shows_the_figures_of_the_run_and_the_bar_is_met():
    """At most a tenth more time than a plain step."""
    page = (REPOSITORY / "docs/two_phase.md").read_text()
    for row in json.loads((REPOSITORY / "docs/results/two_phase_convolution.json").read_text())["rows"]:
        assert f"| {row['network']} | {row['time_ratio']:.2f} | {row['memory_ratio']:.2f} |" in page
        assert row["time_ratio"] <= 1.1
