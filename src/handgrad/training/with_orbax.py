"""What checkpoints need of orbax, which is imported here when it is first used."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from handgrad.checks import InputError
from handgrad.extras import install


def module() -> ModuleType:
    """orbax.checkpoint.

    Raises:
      InputError: it is not installed.
    """
    try:
        import orbax.checkpoint
    except ModuleNotFoundError:
        raise InputError(f"Checkpoints: needs orbax-checkpoint: {install('checkpoints')}") from None
    logging.getLogger("absl").addFilter(_is_not_orbax)  # it logs each error that it raises, several times
    return orbax.checkpoint


def restoring(ocp: ModuleType, array: Any) -> Any:
    """How orbax restores an array: into the sharding of a committed one, else to the host."""
    sharding = getattr(array, "sharding", None)
    if sharding is None or not getattr(array, "committed", True):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=array.shape, dtype=array.dtype)


class HasBest(Protocol):
    """Knows which step is the best."""

    @property
    def best_step(self) -> int | None: ...


@dataclass(frozen=True)
class Best:
    """A preservation policy of orbax: keep the best."""

    of: HasBest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        """For each checkpoint whether to keep it."""
        best = self.of.best_step
        return [checkpoint.step == best for checkpoint in checkpoints]


def _is_not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
