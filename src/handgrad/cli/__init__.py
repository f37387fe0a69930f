"""handgrad on the command line: demo, explain, check, bench, costs and compare."""

import io
import sys
from importlib.metadata import version
from typing import NoReturn


def main() -> None:
    """The entry point.

    Exit status: 0, fine; 1, a wrong gradient; 2, invalid usage; 3, inconclusive; 130, interrupted.
    """
    if sys.argv[1:] == ["--version"]:
        print(f"handgrad {version('handgrad')}, jax {version('jax')}, Python {sys.version.split()[0]}")
        sys.exit(0)
    if sys.argv[1:2] == ["demo"]:  # the imports take seconds, more the first time
        print("handgrad: starting JAX", flush=True)
    try:
        import tyro

        from handgrad.cli import bench, check, compare, costs, demo, explain
    except ModuleNotFoundError as error:
        from handgrad.extras import install

        _leave(2, f"handgrad: the command line needs {error.name}: {install('experiments')}")
    from handgrad.checks import InputError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ρ and × on a terminal whose encoding lacks them
    commands = {"demo": demo, "explain": explain, "check": check, "bench": bench, "costs": costs, "compare": compare}
    options = {name: getattr(module, name.capitalize()) for name, module in commands.items()}
    description = f"{__doc__}\n\n--version prints the version."
    given = tyro.extras.subcommand_cli_from_dict(options, prog="handgrad", description=description)
    try:
        sys.exit(commands[type(given).__name__.lower()].main(given))
    except InputError as error:
        _leave(2, f"handgrad: {error}")
    except KeyboardInterrupt:
        _leave(130, "handgrad: interrupted")


def _leave(status: int, sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(status)
