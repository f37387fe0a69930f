"""Checkpoints: all that a run needs to go on with the same bits, written by orbax."""

import contextlib
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from handgrad.checks import InputError, check_count, check_positive, describe
from handgrad.training import saved, with_orbax
from handgrad.training.interruption import greatest
from handgrad.training.position import Position
from handgrad.training.runs import make_folder
from handgrad.training.state import TrainState

SCHEMA = "handgrad.checkpoint/1"
DAMAGE = (OSError, ValueError, KeyError, TypeError)  # what reading a file raises that is not as it was written


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """A folder of checkpoints, one for each step saved. Each is whole or absent, whenever the process is killed.

    They are written in the background, by orbax. Arrays and random keys keep their bits and dtypes; nothing is pickled.

        with Checkpoints("runs/digits/checkpoints", best="test_loss") as checkpoints:
            state, position = checkpoints.restore(state) or (state, None)
            for state, metrics in fit(..., state, data, checkpoints=checkpoints, position=position): ...

    Args:
      folder: created if it is missing.
      every_seconds: how often `due` says that it is time to save.
      every_steps: the same in steps, instead; `fit` looks about five times a second.
      keep: how many of the latest to keep.
      best: the name of a metric: the checkpoint where it is lowest is kept too.
      higher_is_better: True keeps the one where it is highest.
    Raises:
      InputError: the folder can't be written or read, or an option is out of range; orbax-checkpoint is not installed.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_seconds: float = 60.0,
        every_steps: int | None = None,
        keep: int = 3,
        best: str | None = None,
        higher_is_better: bool = False,
    ):
        check_positive("Checkpoints", "every_seconds", every_seconds)
        check_count("Checkpoints", "keep", keep)
        if every_steps is not None:
            check_count("Checkpoints", "every_steps", every_steps)
        self._ocp = with_orbax.module()
        self.folder = make_folder(Path(folder)).resolve()
        self._every_seconds, self._every_steps, self._best = every_seconds, every_steps, best
        self._sign = 1 if higher_is_better else -1
        self._saved_at = time.monotonic()
        policies = self._ocp.checkpoint_managers
        options = self._ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), with_orbax.Best(self)]),
            cleanup_tmp_directories=True,
        )
        try:
            self._manager = self._ocp.CheckpointManager(self.folder, options=options)
        except DAMAGE as error:
            raise InputError(f"Checkpoints: {self.folder} can't be read ({_reason(error)})") from error
        self._saved_step = max(self.steps, default=0)
        self._merits: dict[int, float] = {}
        for step in self.steps if best is not None else ():
            with contextlib.suppress(*DAMAGE):
                self._merits[step] = self._merit(self._about(step)["metrics"])

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that have a checkpoint, in order."""
        return tuple(sorted(self._manager.all_steps()))

    @property
    def best_step(self) -> int | None:
        """The step of the best metric, the latest of several; None where there is none."""
        merits = [(self._merits.get(step, -math.inf), step) for step in self.steps]
        merit, step = max(merits, default=(-math.inf, 0))
        return step if merit > -math.inf else None

    def due(self, step: int, metrics: Mapping[str, float] | None = None) -> bool:
        """Whether it is time to save, or else whether these metrics of the epoch are the best so far.

        All processes of a run get the same answer.
        """
        best = self.best_step
        if metrics is not None and self._merit(metrics) > (-math.inf if best is None else self._merits[best]):
            return True
        if self._every_steps is not None:
            return step - self._saved_step >= self._every_steps
        return bool(greatest(time.monotonic() - self._saved_at >= self._every_seconds))

    def save(self, state: TrainState, position: Position, metrics: Mapping[str, float] | None = None) -> None:
        """Start writing a checkpoint, unless this step has one. The state may be donated once this returns.

        Args:
          metrics: of the epoch that has just ended, if one has.
        Raises:
          InputError: this checkpoint or the one before can't be written; `metrics` has no `best`; the folder has a
            checkpoint of a later step, which was not restored.
        """
        step, merit = int(state.step), self._merit(metrics)
        self._saved_at, self._saved_step = time.monotonic(), step
        latest = max(self.steps, default=-1)
        if step == latest:
            return
        if step < latest:
            raise InputError(
                f"Checkpoints: {self.folder} must hold earlier steps than {step}, got {latest}: restore it"
            )
        self._merits[step] = merit
        leaves = saved.named(state)
        arrays = saved.arrays(leaves)
        about = {
            "schema": SCHEMA,
            "position": position._asdict(),
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "leaves": saved.described(leaves),
            "checksums": saved.checksums(arrays),
        }
        args = self._ocp.args
        items = args.Composite(arrays=args.PyTreeSave(arrays), about=args.JsonSave(saved.sealed(about)))
        self.wait()
        with self._writing():
            size, free = sum(array.nbytes for array in arrays.values()), shutil.disk_usage(self.folder).free
            if size > free:
                raise OSError(f"{size:,} bytes are needed, {free:,} are free")
            self._manager.save(step, args=items, force=True)

    def restore(self, like: TrainState, *, best: bool = False) -> tuple[TrainState, Position] | None:
        """The state and the position of the latest checkpoint; None where there is none.

        A damaged checkpoint is renamed, with a warning, and the one before it is restored.

        Args:
          like: a state of the same structure, shapes and dtypes; each array takes the sharding of its array there.
          best: True restores the best checkpoint instead of the latest.
        Raises:
          InputError: the checkpoint is of another model or optimizer, or none is whole.
        """
        if best and self._best is None:
            raise InputError(
                "Checkpoints.restore: best=True needs Checkpoints(best=...), the name of a metric, got None"
            )
        if not isinstance(like, TrainState):
            raise InputError(
                "Checkpoints.restore: like must be a TrainState, as init_state(params, optimizer, key) makes it, "
                f"got {describe(like)}"
            )
        self.wait()
        steps = [self.best_step] if best else self.steps[::-1]
        damaged: dict[int, str] = {}
        for step in (step for step in steps if step is not None):
            try:
                restored = self._read(step, like)
            except InputError:
                raise
            except DAMAGE as error:
                damaged[step] = _reason(error)
                continue
            if damaged:
                self._set_aside(damaged, step)
            return restored
        if damaged:
            step, reason = next(iter(damaged.items()))
            raise InputError(
                f"Checkpoints.restore: no checkpoint in {self.folder} is whole; {step} is damaged ({reason})"
            )
        return None

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
          InputError: the last checkpoint can't be written; those before it remain.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and end orbax's threads. Raises what `wait` raises."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of writing as one sentence."""
        try:
            yield
        except (OSError, ValueError) as error:
            self._manager.reload()
            raise InputError(
                f"Checkpoints: {self.folder} can't be written ({_reason(error)}); its checkpoints until now remain"
            ) from error

    def _about(self, step: int) -> dict[str, Any]:
        args = self._ocp.args
        about = self._manager.restore(step, args=args.Composite(about=args.JsonRestore()))["about"]
        saved.check_sealed(about)
        return about

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, Position]:
        args, folder, about = self._ocp.args, self.folder / str(step), self._about(step)
        if about["schema"] != SCHEMA:
            raise InputError(f"Checkpoints.restore: {folder} must have the schema {SCHEMA}, got {about['schema']}")
        leaves = saved.named(like)
        if differs := saved.difference(about["leaves"], saved.described(leaves)):
            raise InputError(f"Checkpoints.restore: {folder} is of another model or optimizer: {differs}")
        wanted = saved.arrays(leaves)
        ways = {name: with_orbax.restoring(self._ocp, array) for name, array in wanted.items()}
        items = args.Composite(arrays=args.PyTreeRestore(item=dict.fromkeys(wanted, 0), restore_args=ways))
        arrays = self._manager.restore(step, args=items)["arrays"]
        saved.check_whole(arrays, about["checksums"])
        state = jax.tree.unflatten(jax.tree.structure(like), saved.restored(leaves, arrays))
        return state, Position(**about["position"])

    def _set_aside(self, damaged: Mapping[int, str], whole: int) -> None:
        """Rename damaged checkpoints, so that their steps can be saved again."""
        for step, reason in damaged.items():
            folder = self.folder / str(step)
            aside = folder.with_name(f"{step}.damaged-{time.time_ns()}")
            warnings.warn(
                f"{folder} is damaged ({reason}): renamed to {aside.name}, going on from {whole}", stacklevel=3
            )
            if jax.process_index() == 0:
                folder.rename(aside)
        greatest(0)  # the others wait for the first
        self._manager.reload()

    def _merit(self, metrics: Mapping[str, float] | None) -> float:
        """The metric that the best is chosen by, the higher the better; −∞ for NaN, and where there is none."""
        if not metrics or self._best is None:
            return -math.inf
        if self._best not in metrics:
            raise InputError(f"Checkpoints: best must be one of the metrics {', '.join(metrics)}, got {self._best!r}")
        value = float(metrics[self._best])
        return -math.inf if math.isnan(value) else self._sign * value


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return said if len(said) <= 120 else f"{said[:120]}…"
