"""A run's folder: enough to understand the run, and to go on with it."""

import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Collection, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

import jax

from handgrad.checks import InputError
from handgrad.extras import install

CONFIG, STARTS, METRICS = "config.json", "starts.jsonl", "metrics.jsonl"
PACKAGES = ("handgrad", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint")


class Run:
    """A folder for the files of a run.

        config.json      the options
        starts.jsonl     a line for each start: time, command, device, versions
        metrics.jsonl    a line for each epoch
        checkpoints/     for Checkpoints

    A folder that holds a run of the same options is resumed; another is refused. Of the processes of a run only the
    first writes.

        run = Run("runs/digits", {"learning_rate": 0.1, "seed": 0})
        for state, metrics in fit(...): run.append(metrics)

    Args:
      folder: new, empty, or a run's.
      config: the options, as JSON can hold them.
      may_change: names of options that may have another value when the run is resumed, such as the number of epochs.
      tensorboard: True writes the metrics for TensorBoard too, by tensorboardX, into tensorboard/.
    Raises:
      InputError: the folder can't be written, holds another run or other files; a value of config that isn't JSON's;
        tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        *,
        may_change: Collection[str] = (),
        tensorboard: bool = False,
    ):
        self.folder = Path(folder)
        self._board, self._writer, self._begun = tensorboard, None, False
        if tensorboard:
            _summary_writer()
        if jax.process_index() == 0:
            make_folder(self.folder)
            self._start(_as_json(config), may_change)

    @property
    def checkpoints(self) -> Path:
        """The folder for Checkpoints."""
        return self.folder / "checkpoints"

    def append(self, metrics: Mapping[str, float]) -> None:
        """Write a line of metrics.jsonl, and hand it to the operating system.

        The first line after a start drops the lines of the same step and later: those that the run had written after
        the checkpoint from which it goes on.
        """
        if "step" not in metrics:
            raise InputError(f"Run.append: metrics must have a step, got {', '.join(metrics) or 'none'}")
        if jax.process_index() != 0:
            return
        line = {name: _number(value) for name, value in metrics.items()}
        path = self.folder / METRICS
        try:
            if not self._begun:
                _truncate(path, metrics["step"])
            with path.open("ab") as file:
                file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"Run.append: {path} can't be written or continued ({error})") from None
        if self._board:
            self._show(line)
        self._begun = True

    def _start(self, config: dict[str, Any], may_change: Collection[str]) -> None:
        path = self.folder / CONFIG
        others = sorted(file.name for file in self.folder.iterdir() if not file.name.startswith("."))
        try:
            if path.exists():
                _check_same(self.folder, json.loads(path.read_text()), config, may_change)
            elif others:
                raise InputError(
                    f"Run: folder must be new, empty or a run's, got {self.folder}, which holds {others[0]}"
                )
            else:
                draft = self.folder / f".{CONFIG}"
                draft.write_text(json.dumps(config, indent=1) + "\n")
                draft.replace(path)
            start = {**_circumstances(), "options": {name: config.get(name) for name in may_change}}
            with (self.folder / STARTS).open("a") as file:
                file.write(json.dumps(start) + "\n")
        except (OSError, json.JSONDecodeError) as error:
            raise InputError(f"Run: {self.folder} can't be resumed or written ({error})") from None

    def _show(self, line: Mapping[str, float | None]) -> None:
        """TensorBoard's copy; what it has of later steps is hidden where the run goes on."""
        step = line["step"]
        if self._writer is None:
            options = {"purge_step": step, "flush_secs": 1, "filename_suffix": f".{time.time_ns()}"}
            self._writer = _summary_writer()(str(self.folder / "tensorboard"), **options)
        for name, value in line.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, step)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; one that was cut off by the end of its process is left out.

    Raises:
      InputError: there is none; a line is not JSON.
    """
    path = folder / METRICS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise InputError(
            f"read_metrics: folder must be a run's, with {METRICS} as Run and fit_run write it, "
            f"got {folder} ({error.strerror})"
        ) from None
    try:
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
    except ValueError as error:
        raise InputError(f"read_metrics: {path} must have JSON in each line, got {error}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """A run's options, those that may change as its last start had them; none where the folder has no config.json."""
    path, starts = folder / CONFIG, folder / STARTS
    try:
        config = json.loads(path.read_text()) if path.exists() else {}
        lines = starts.read_text().splitlines(keepends=True) if starts.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        changed = json.loads(whole[-1]).get("options", {}) if whole else {}
    except ValueError as error:
        raise InputError(f"read_config: {folder} must hold JSON in {CONFIG} and {STARTS}, got {error}") from None
    return config | {name: value for name, value in changed.items() if name in config}


def make_folder(folder: Path) -> Path:
    """Create the output folder if it is missing, before the work begins, so that no result is lost.

    Raises:
      InputError: it can't be created, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"make_folder: the output folder must be one that can be written, got {folder} ({error.strerror})"
        ) from None
    return folder


def machine() -> dict[str, str | int | None]:
    """What every measured figure is reported with: date, device, cores, versions of jax and Python."""
    device = min(jax.device_put(0).devices(), key=lambda device: device.id)  # the default one
    return {
        "date": date.today().isoformat(),
        "device": f"{device.platform} ({device.device_kind})",
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def _circumstances() -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    devices = {"devices": jax.device_count(), "processes": jax.process_count()}
    start = {"time": datetime.now().astimezone().isoformat(timespec="seconds"), "command": shlex.join(sys.orig_argv)}
    return {**start, **machine(), **devices, "versions": versions}


def _as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(config, Mapping):
        raise InputError(f"Run: config must be a dict of options, got {type(config).__name__}")
    found = {}
    for name, value in config.items():
        try:
            found[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"Run: config must be what JSON can hold, got for {name!r}: {error}") from None
    return found


def _check_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any], may_change: Collection[str]) -> None:
    for name in [*here, *there]:
        if name not in may_change and (name in there, there.get(name)) != (name in here, here.get(name)):
            was, now = (repr(one[name]) if name in one else "missing" for one in (there, here))
            raise InputError(f"Run: {folder} holds another run: its {name} is {was}, this one's {now}")


def _number(value: float) -> float | int | None:
    """As JSON has it, which knows neither infinities nor NaN."""
    number = value if isinstance(value, int) else float(value)
    return number if math.isfinite(number) else None


def _truncate(path: Path, step: float) -> None:
    """Cut a file of metrics off before the first line of this step or a later one, or one that isn't whole."""
    if not path.exists():
        return
    kept = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
            break
        kept += len(line)
    os.truncate(path, kept)


def _summary_writer() -> type:
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise InputError(f"Run: tensorboard needs tensorboardX: {install('tensorboard')}") from None
    return SummaryWriter
