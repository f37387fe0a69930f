"""Where a run writes its files, and on what machine they were made."""

import os
import platform
from datetime import date
from pathlib import Path

import jax

from handgrad.checks import InputError


def make_folder(folder: Path) -> Path:
    """Create the output folder if it is missing, before the work begins, so that no result is lost.

    Raises:
      InputError: it can't be created, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"make_folder: the output folder must be one that can be written, got {folder} ({error.strerror})"
        ) from None
    return folder


def machine() -> dict[str, str | int | None]:
    """What every measured figure is reported with: date, device, cores, versions of jax and Python."""
    device = jax.devices()[0]
    return {
        "date": date.today().isoformat(),
        "device": f"{device.platform} ({device.device_kind})",
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
