"""The command that installs one of handgrad's extras, as handgrad is installed here.

It knows the standard library alone, so that every part of the package may name it where something is missing.
"""

import importlib.metadata
import json
import shlex
import shutil
import sys
from pathlib import Path


def install(extra: str) -> str:
    """The command that installs this extra for the Python that runs.

    From a checkout that is `pip install -e '.[extra]'`, with the folder in the dot's place where it is another than the
    current one. A wheel or a repository is named by its address, and only what came from a package index by the name
    alone. `pip` stands for this Python's: where the shell would run another one, this Python is named instead.
    """
    return f"{_pip()} install {_target(extra)}"


def _pip() -> str:
    pip = shutil.which("pip")
    if pip and Path(pip).parent == Path(sys.executable).parent:
        return "pip"
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return f"{shlex.quote(str(python))} -m pip"


def _target(extra: str) -> str:
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        folder = "." if checkout == Path.cwd() else checkout
        return f"-e '{folder}[{extra}]'"
    address = _address()
    return f"'handgrad[{extra}] @ {address}'" if address else f"'handgrad[{extra}]'"


def _address() -> str | None:
    """Where handgrad was installed from, unless from a package index: what PEP 610 has installers write down."""
    try:
        written = importlib.metadata.distribution("handgrad").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    if written is None:
        return None
    origin = json.loads(written)
    if "vcs_info" in origin:
        return f"{origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
    return origin["url"]
