"""handgrad check: the library's own gradients, or yours."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from handgrad.checks import InputError, check_count
from handgrad.cli import output
from handgrad.cli.target import Request, check_target
from handgrad.cli.whole import NETWORK_DTYPES, RULE_DTYPES, Plan, check_library
from handgrad.crosscheck.settings import Transform
from handgrad.extras import install

Dtype = Literal["float64", "float32", "bfloat16", "float16", "complex64", "complex128"]
Function = Annotated[str, tyro.conf.arg(metavar="MODULE:NAME", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
LIMITS = {"count": 10**6, "draws": 10**3, "max_depth": 10**3}  # beyond which a run would not end, or run out of memory
OF_A_TARGET = tuple(name for name in Request._fields if name not in ("target", "dtype", "seed", "search"))
OF_THE_LIBRARY = tuple(LIMITS)


@dataclass(frozen=True)
class Check:
    """Check hand-written gradients, yours or the library's own.

    As in: handgrad check mine:softmax --shapes "5,7"

    Exit status 0: every gradient is right.
    1: one is wrong, or can't be checked.
    2: invalid usage.
    3: inconclusive, or the reference itself fails, or the command does.
    """

    target: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[TARGET]", help_behavior_hint="")]] = ""
    """What to check, as package.module:name: a jax.custom_vjp function, a layer, or a (forward, backward) pair, which
    may be two functions called name_forward and name_backward. The library's own rules if omitted."""
    args: Function = ""
    """A function that returns the target's arguments as a tuple. It may take a NumPy random generator."""
    shapes: Annotated[str, tyro.conf.arg(metavar="SHAPES", help_behavior_hint="")] = ""
    """Shapes of the target's arguments, as "5,7;7,3;3"; they are filled with normal random numbers."""
    reference: Function = ""
    """A function that computes the target's output independently. By default, autodiff of the target's own forward
    pass."""
    dtype: Dtype | None = None
    """The dtype of all floating-point inputs. By default, args keep theirs and shapes are float32; float64 detects
    errors a billion times smaller. The library's rules are checked in float64, and on their first inputs in float32 and
    bfloat16 too."""
    seed: int = 0
    """Seed of inputs, cotangents and networks."""
    search: bool = False
    """Search for inputs that make the gradient fail, and reduce them to the smallest."""
    json: File = None
    """A file to write the report to, as JSON; for the library, all reports."""
    html: File = None
    """A file to write the report to, as a page; for the library, the worst report."""
    argnums: tuple[int, ...] = ()
    """For a target: the arguments whose gradient is checked, counted from 0. All floating-point ones if omitted."""
    differences: bool = True
    """For a target: verify autodiff of the reference by finite differences. Without, a gradient that isn't the
    derivative on purpose can be checked, such as a straight-through estimator's."""
    transforms: tuple[Transform, ...] = ("jit", "vmap")
    """For a target: which transformations of JAX to check it under."""
    rtol: float | None = None
    """For a target: tolerance as a share of each argument's largest gradient; derived from rounding by default."""
    atol: float = 0.0
    """For a target: absolute tolerance. What passes only because of it is inconclusive."""
    repair: bool = True
    """For a target: search for the change of the source that makes a wrong gradient right."""
    repair_seconds: float = 15.0
    """For a target: processor time that this search may take."""
    count: int = 64
    """For the library: number of random networks in each dtype."""
    draws: int = 4
    """For the library: number of random networks that share a structure, which is compiled once, with different
    parameters and data."""
    max_depth: int = 8
    """For the library: largest number of linear layers in a random network."""


def main(options: Check) -> int:
    """The command's exit status. An invalid option is an InputError, before anything is checked."""
    plan = _plan(options)
    output.check_outputs(options.json, options.html)
    console = Console()
    if options.target:
        reports = [check_target(Request(*(getattr(options, name) for name in Request._fields)))]
        output.show(console, reports[0])
        output.hint(console, reports[0], options.dtype)
    else:
        reports = check_library(plan, console)
    output.write(reports, options.json, options.html, console)
    if options.target:
        output.verdict(console, reports[0])
    return output.status(reports)


def _plan(options: Check) -> Plan:
    """The plan for the library, after checking all options."""
    for name in OF_THE_LIBRARY if options.target else OF_A_TARGET:
        if getattr(options, name) != getattr(Check, name):
            where = "the library's rules, and a target is given" if options.target else "a target, and none is given"
            raise InputError(f"check: --{name.replace('_', '-')} goes with {where}")
    for name, most in LIMITS.items():
        check_count("check", name, getattr(options, name))
        if getattr(options, name) > most:
            raise InputError(f"check: {name} must be at most {most:,}, got {getattr(options, name):,}")
    if options.count % options.draws:
        raise InputError(f"check: --draws must divide --count, got {options.draws} and {options.count}")
    if not 0 <= options.seed < 2**32:
        raise InputError(f"check: seed must be at least 0 and below 2**32, got {options.seed}")
    if not options.target and options.dtype and options.dtype.startswith("complex"):
        raise InputError(f"check: the library's rules are real, got {options.dtype}")
    if options.search and importlib.util.find_spec("hypothesis") is None:
        raise InputError(f"check: search needs hypothesis: {install('search')}")
    return Plan(
        (options.dtype,) if options.dtype else RULE_DTYPES,
        (options.dtype,) if options.dtype else NETWORK_DTYPES,
        options.count,
        options.draws,
        options.seed,
        options.max_depth,
        options.search,
    )
