"""Where the independent baselines are: in a clone of the repository, beside the package that it installs."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import handgrad
from handgrad.checks import InputError

PACKAGE = "baselines"


def folder(given: Path | None) -> Path | None:
    """The folder of baselines: the one given, or experiments/baselines of the clone that handgrad is imported from.

    Raises:
      InputError: the one given is none.
    """
    clone = Path(handgrad.__file__).parents[2] / "experiments" / PACKAGE
    found = given or clone
    if (found / "__init__.py").is_file():
        return found
    if given:
        raise InputError(f"bench: baselines must be a folder like experiments/baselines, with __init__.py, got {given}")
    return None


def load(names: Sequence[str], place: Path | None, *, torch: bool) -> dict[str, ModuleType]:
    """The baselines of these names; those of PyTorch only where it is asked for and installed."""
    if place is None:
        return {}
    if PACKAGE not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACKAGE, place / "__init__.py", submodule_search_locations=[str(place)]
        )
        if spec is None or spec.loader is None:
            raise InputError(f"bench: baselines can't be imported from {place}")
        sys.modules[PACKAGE] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    torch = torch and importlib.util.find_spec("torch") is not None
    wanted = [name for name in names if torch or not name.endswith("_torch")]
    return {name: importlib.import_module(f"{PACKAGE}.{name}") for name in wanted}
