"""handgrad check: the library's own gradients, or yours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from handgrad.checks import InputError, check_count
from handgrad.cli import output
from handgrad.cli.target import Request, check_target
from handgrad.cli.whole import NETWORK_DTYPES, RULE_DTYPES, Plan, check_library

Dtype = Literal["float64", "float32", "bfloat16", "float16", "complex64", "complex128"]


@dataclass(frozen=True)
class Check:
    """Check hand-written gradients: every rule of the library and random networks, or a target of your own.

    Exit status 0: right; 1: a wrong gradient; 2: usage; 3: inconclusive.
    """

    target: tyro.conf.Positional[str] = ""
    """package.module:name of a jax.custom_vjp function, a layer, or a (forward, backward) pair: a tuple of two, or
    functions called name_forward and name_backward. Empty: the library itself."""
    args: str = ""
    """The target's arguments: module:function of no arguments, or of a NumPy random generator, that returns a tuple."""
    shapes: str = ""
    """The target's arguments: normal numbers of these shapes, as "5,7;7,3;3"."""
    reference: str = ""
    """module:function, written independently; empty: autodiff of the target's own forward pass."""
    dtype: Dtype | None = None
    """The dtype of all floating-point inputs. None: for the library, float64, and float32 and bfloat16 for each rule's
    first inputs; float32 for shapes, and args as they are returned."""
    seed: int = 0
    """Of inputs, cotangents and networks."""
    search: bool = False
    """Look for inputs that make it fail, and shrink what is found."""
    json: Path | None = None
    """A file for the report; of the library, for all of them."""
    html: Path | None = None
    """A file for the report as a page; of the library, for the worst one."""
    count: int = 64
    """Random networks in each dtype."""
    draws: int = 4
    """How many of them share a structure, and its compilation, with different parameters and data."""
    max_depth: int = 8
    """Linear layers in a random network, at most."""


def main(options: Check) -> int:
    """The command's exit status: 0 right, 1 wrong, 3 inconclusive. An invalid option is an InputError, before anything
    is checked."""
    plan = _plan(options)
    output.check_outputs(options.json, options.html)
    console = Console()
    if options.target:
        report = check_target(
            Request(
                options.target,
                options.args,
                options.shapes,
                options.reference,
                options.dtype,
                options.seed,
                options.search,
            )
        )
        output.show(console, report)
        reports = [report]
    else:
        reports = check_library(plan, console)
    output.write(reports, options.json, options.html, console)
    return output.status(reports)


def _plan(options: Check) -> Plan:
    for name in ("count", "draws", "max_depth"):
        check_count("check", name, getattr(options, name))
    if options.count % options.draws:
        raise InputError(f"check: draws must divide count, got {options.draws} and {options.count}")
    if options.seed < 0:
        raise InputError(f"check: seed must be at least 0, got {options.seed}")
    for name in ("args", "shapes", "reference"):
        if getattr(options, name) and not options.target:
            raise InputError(f"check: {name} is for a target, and there is none")
    if not options.target and options.dtype and options.dtype.startswith("complex"):
        raise InputError(f"check: the library's rules are real, got {options.dtype}")
    return Plan(
        (options.dtype,) if options.dtype else RULE_DTYPES,
        (options.dtype,) if options.dtype else NETWORK_DTYPES,
        options.count,
        options.draws,
        options.seed,
        options.max_depth,
        options.search,
    )
