"""The rows of a bench as a JSON file, written row by row, so that a run which is interrupted goes on where it was."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import handgrad
from handgrad.checks import InputError
from handgrad.training import machine

SCHEMA = "handgrad.bench/1"
SAME = ("schema", "sources", "device", "cores", "jax", "python", "plan")  # what rows of one file have in common


def sources(baselines: Path | None) -> str:
    """A fingerprint of the package's and the baselines' code: rows of different code don't go in one file."""
    digest = hashlib.sha256()
    for folder in (Path(handgrad.__file__).parent, baselines):
        for path in sorted(folder.rglob("*.py")) if folder else ():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Records:
    """Rows by workload.

    Attributes:
      rows: those finished, by name; those of the file first.
    """

    def __init__(self, path: Path | None, plan: Mapping[str, Any], baselines: Path | None) -> None:
        """Read the file, where there is one.

        Raises:
          InputError: its rows are of other code, another machine or other options.
        """
        self._path = path
        self._head = {"schema": SCHEMA, "sources": sources(baselines), **machine(), "plan": dict(plan)}
        self.rows: dict[str, dict[str, Any]] = {}
        if path is None or not path.exists() or not path.stat().st_size:
            return
        try:
            found = json.loads(path.read_text())
            self.rows = {row["name"]: row for row in found["rows"]}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"bench: json must be a file of bench or a new one, got {path}") from None
        for name in SAME:
            if found.get(name) != self._head[name]:
                raise InputError(
                    f"bench: the rows in {path} are of another run, whose {name} is {found.get(name)} and not "
                    f"{self._head[name]}: name another file, or delete it"
                )
        self._head["date"] = found["date"]

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, and write all of them."""
        self.rows[row["name"]] = row
        if self._path:
            text = json.dumps({**self._head, "rows": list(self.rows.values())}, indent=1, ensure_ascii=False)
            beside = self._path.with_suffix(".part")
            beside.write_text(text + "\n", encoding="utf-8")
            beside.replace(self._path)
