"""Two processes of four devices each, which find one another by jax.distributed, are one device with all the batch."""

import pytest
from devices.processes import run_together


@pytest.mark.slow
def test_two_processes_are_one_program():
    for found in run_together("one_of_two_hosts.py", 2):
        assert (found["devices"], found["processes"]) == (8, 2)
        assert found["off"] < 1e-13


@pytest.mark.slow
def test_layouts_over_two_processes():
    """Several steps of Adam; a batch that each process has half of is the batch that both have; epochs of `fit`."""
    for found in run_together("laid_out_on_two_hosts.py", 2):
        assert len(found) == 17
        assert max(found.values()) < 1e-12, found


@pytest.mark.slow
def test_checkpoints_of_two_processes(tmp_path):
    """What one of them finds, both do: that it is time to save, that a signal came, that a checkpoint is damaged."""
    for rank, found in enumerate(run_together("checkpointed_on_two_hosts.py", 2, str(tmp_path))):
        expected = {"none": True, "due": True, "steps": [2, 3, 4], "best": 2, "signal": 15, "warnings": 1}
        restored = {"position": 3, "left": [2, 3], "sharded": True, "parts": [3.0], "alone": 3.0}
        assert found == expected | restored, rank
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 4
