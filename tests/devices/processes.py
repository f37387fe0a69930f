"""Real processes that find one another on this machine by jax.distributed."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_together(script: str, processes: int, *arguments: str) -> list[dict[str, Any]]:
    """The last line, JSON, of each of so many processes of a script beside this one: `python script PORT RANK ...`."""
    command = [sys.executable, str(Path(__file__).with_name(script)), str(free_port())]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen([*command, str(rank), *arguments], env=environment, **pipes) for rank in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=180) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, err) in zip(running, outputs, strict=True):
        assert process.returncode == 0, err
    return [json.loads(out.splitlines()[-1]) for out, _ in outputs]
