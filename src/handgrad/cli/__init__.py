"""handgrad on the command line: demo, explain, check, bench, costs and compare."""

import io
import re
import sys
import traceback
from dataclasses import field, fields, make_dataclass
from importlib.metadata import version
from typing import Annotated, Any, NoReturn, Union


def main() -> None:
    """The entry point.

    Exit status: 0, fine; 1, a wrong gradient; 2, invalid usage; 3, inconclusive, or the command failed; 130,
    interrupted.
    """
    if sys.argv[1:] == ["--version"]:
        print(f"handgrad {version('handgrad')}, jax {version('jax')}, Python {sys.version.split()[0]}")
        sys.exit(0)
    if sys.argv[1:2] == ["demo"]:  # the imports take seconds, more the first time
        print("handgrad: starting JAX", flush=True)
    try:
        _run()
    except KeyboardInterrupt:  # while it imports, too
        _leave(130, "handgrad: interrupted")


def _run() -> NoReturn:
    """Read the command line, and run the command."""
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
    name, *rest = sys.argv[1:] or [""]
    if name not in commands:  # help, or what is no command; it ends here
        tyro.cli(_everything(options), prog="handgrad", description=__doc__, config=(tyro.conf.OmitArgPrefixes,))
        _leave(2, "handgrad: --version stands alone")
    given = tyro.cli(options[name], prog=f"handgrad {name}", args=rest)  # its errors name this command's help
    try:
        sys.exit(commands[name].main(given))
    except InputError as error:
        _leave(2, f"handgrad: {_typed(str(error), given)}")
    except Exception:  # Python's own status, 1, would say that a gradient is wrong
        traceback.print_exc()
        _leave(3, f"handgrad: {name} failed: it decided nothing")


def _everything(options: dict[str, type]) -> Any:
    """All commands, and the one option beside them: what `handgrad --help` prints."""
    import tyro

    commands = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, kind in options.items())
    help_ = "Print the versions of handgrad, jax and Python."
    flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=help_, help_behavior_hint="")]
    return make_dataclass("Handgrad", [("command", Union[commands]), ("version", flag, field(default=False))])  # noqa: UP007


def _typed(sentence: str, given: Any) -> str:
    """An error's sentence, in which the options that it begins with are written as they are typed."""
    names = "|".join(one.name for one in fields(given) if one.name not in ("target", "runs"))
    match = re.match(rf"(\w+: )({names})( and ({names}))?(?= )", sentence)
    if match is None:
        return sentence
    start = re.sub(names, lambda name: "--" + name[0].replace("_", "-"), match[0].removeprefix(match[1]))
    return match[1] + start + sentence[match.end() :]


def _leave(status: int, sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(status)
