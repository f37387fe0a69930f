"""A published run again, digit for digit: see experiments/nielsen_replay.py."""

import json

import nielsen_replay
import pytest


@pytest.mark.slow
def test_overfitting(shared_data, tmp_path):
    options = nielsen_replay.NielsenReplay(
        shared_data / "mnist", shared_data / "nielsen/overfitting.json", out=tmp_path / "replay.json"
    )
    nielsen_replay.run(options)
    figures = json.loads(options.out.read_text())
    for way in ("by hand", "NumPy"):
        assert figures[way]["largest cost difference"] < 1e-12
        assert figures[way]["accuracies that differ"] == 0
