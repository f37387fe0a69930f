"""Two processes of four devices each, which find one another by jax.distributed, are one device with all the batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("one_of_two_hosts.py")


@pytest.mark.slow
def test_two_processes_are_one_program():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(SCRIPT), port]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen([*command, rank], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    try:
        outputs = [process.communicate(timeout=180) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err
        found = json.loads(out.splitlines()[-1])
        assert (found["devices"], found["processes"]) == (8, 2)
        assert found["off"] < 1e-13
