"""What every part does: it begins nothing after its time, says in a sentence what failed, and writes as it goes."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from handgrad.training import machine

LONGEST = 200  # characters of a sentence: XLA lists all buffers when memory runs out


class Part:
    """One part of the run, and its file.

    Attributes:
      path: the file.
      figures: what is found so far.
      failed: what failed, in a sentence each.
      left_out: what didn't begin, since the time was up.
    """

    def __init__(self, path: Path, until: float, **head: Any) -> None:
        self.path, self._until, self._head = path, until, head
        self.figures: dict[str, Any] = {}
        self.failed: dict[str, str] = {}
        self.left_out: list[str] = []

    def attempt(self, name: str, run: Callable[[], Any], *, late: bool = False) -> Any:
        """What `run` returns; None where it fails, or where the time is up and it mustn't be late."""
        if not late and time.monotonic() > self._until:
            self.left_out.append(name)
            return None
        try:
            return run()
        except Exception as error:  # whatever it is, the others still run
            self.failed[name] = sentence(error)
            return None

    def write(self, **figures: Any) -> None:
        """The file as it stands, with these figures besides."""
        self.figures |= figures
        self.path.write_text(json.dumps({**self._head, **self.all}, indent=1) + "\n")

    @property
    def all(self) -> dict[str, Any]:
        """The figures, and what they lack."""
        return {**self.figures, "failed": self.failed, "left_out": self.left_out}


def sentence(error: Exception) -> str:
    """An error's kind and its first line."""
    said = str(error).strip().splitlines() or [""]
    whole = f"{type(error).__name__}: {said[0]}"
    return whole if len(whole) <= LONGEST else f"{whole[: LONGEST - 1]}…"


def hardware() -> dict[str, Any]:
    """The machine, its accelerator's memory, and the driver's side of JAX."""
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return {**machine(), "memory_bytes": memory, "runtime": " ".join(device.client.platform_version.split())}
