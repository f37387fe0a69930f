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
    """Several steps of Adam; a batch that each process has half of is the batch that both have."""
    for found in run_together("laid_out_on_two_hosts.py", 2):
        assert len(found) == 16
        assert max(found.values()) < 1e-12, found
