"""handgrad on the command line: demo, check and bench."""

import sys


def main() -> None:
    """The entry point. Exit status 0: fine; 1: a wrong gradient; 2: usage; 3: it could not be told."""
    try:
        import tyro

        from handgrad.cli import bench, check, demo
    except ModuleNotFoundError as error:
        sys.exit(f"handgrad: the command line needs {error.name}: pip install 'handgrad[experiments]'")
    from handgrad.shapes import InputError

    commands = {"demo": demo.Demo, "check": check.Check, "bench": bench.Bench}
    options = tyro.extras.subcommand_cli_from_dict(commands, prog="handgrad", description=__doc__)
    try:
        sys.exit({demo.Demo: demo.main, check.Check: check.main, bench.Bench: bench.main}[type(options)](options))
    except InputError as error:
        print(f"handgrad: {error}", file=sys.stderr)
        sys.exit(2)
