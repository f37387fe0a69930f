"""handgrad on the command line: demo, check, bench and explain."""

import sys


def main() -> None:
    """The entry point. Exit status 0: fine; 1: a wrong gradient; 2: usage; 3: inconclusive."""
    try:
        import tyro

        from handgrad.cli import bench, check, demo, explain
    except ModuleNotFoundError as error:
        sys.exit(f"handgrad: the command line needs {error.name}: pip install 'handgrad[experiments]'")
    from handgrad.checks import InputError

    commands = {"demo": demo, "check": check, "bench": bench, "explain": explain}
    options = {name: getattr(module, name.capitalize()) for name, module in commands.items()}
    given = tyro.extras.subcommand_cli_from_dict(options, prog="handgrad", description=__doc__)
    try:
        sys.exit(commands[type(given).__name__.lower()].main(given))
    except InputError as error:
        print(f"handgrad: {error}", file=sys.stderr)
        sys.exit(2)
