"""handgrad explain: a network worked through in matrices, with its own numbers."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import jax
import tyro
from rich.console import Console

from handgrad.checks import InputError, describe
from handgrad.cli.output import check_writable
from handgrad.cli.target import load, raised
from handgrad.explain import questions, to_json
from handgrad.explain.derivation import derive
from handgrad.explain.derived import derivation_document
from handgrad.explain.document import Document
from handgrad.explain.markup import as_latex, as_markdown
from handgrad.explain.network import network_document
from handgrad.explain.questions import Problem
from handgrad.explain.text import as_text, show

WAYS = ("target", "question", "chain", "sizes", "rule")
Format = Literal["text", "markdown", "latex", "html", "json"]
SUFFIXES: dict[str, Format] = {
    **{".txt": "text", ".md": "markdown", ".markdown": "markdown", ".tex": "latex"},
    **{".html": "html", ".htm": "html", ".json": "json"},
}
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]  # --chain, and no --no-chain
Name = Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
AS_TEXT: dict[str, Callable[[Document], str]] = {"text": as_text, "markdown": as_markdown, "latex": as_latex}


OF_ACTIVATION = (
    "For sizes: the activation between the linear layers, or after the layer if there is only one: "
    f"{', '.join(questions.ACTIVATIONS)}."
)
OF_LOSS = f"For sizes, and for a target that returns no loss: {', '.join(questions.TARGETS)}."


@dataclass(frozen=True)
class Explain:
    """Work a network through in matrices: forward, loss, backward, update, in numbers.

    As in: handgrad explain --sizes 3,2 --batch 2

    Each gradient is printed beside jax.grad's and a difference quotient.

    Without a target, sizes or a rule: the single weight of the question.
    """

    target: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="[TARGET]", help_behavior_hint="")]] = ""
    """Your network, as package.module:function: a function without arguments that returns (model, params, x, target),
    or with a loss as the fifth."""
    question: Flag = False
    """The question's single weight, found by twenty steps of gradient descent."""
    chain: Flag = False
    """The question's two weights in a row."""
    sizes: Annotated[str, tyro.conf.arg(metavar="SIZES", help_behavior_hint="")] = ""
    """A network of linear layers, as "3,2" or "4,5,2", with random numbers that are easy to read."""
    rule: Name = ""
    """A rule of handgrad.rules, as layer_norm: the four steps of its derivation, in numbers."""
    batch: int = 2
    """For sizes: number of examples."""
    activation: Annotated[str, tyro.conf.arg(metavar="NAME", help=OF_ACTIVATION)] = "tanh"
    loss: Annotated[str, tyro.conf.arg(metavar="NAME", help=OF_LOSS)] = "squared_error"
    seed: int = 0
    """For sizes and rule: seed of the numbers."""
    learning_rate: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """The learning rate. By default 0.1; 0.007 for the question, 0.0002 for two weights."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """How many training steps. By default 20; 40 for two weights."""
    format: Annotated[
        Format | None, tyro.conf.arg(metavar=f"{{{','.join(get_args(Format))}}}", help_behavior_hint="")
    ] = None
    """Output format. By default, what the suffix of --out says, or text. latex is for lualatex or xelatex. html is one
    page that needs no network: sliders over steps and learning rates, a quiz."""
    quiz: Flag = False
    """For html: begin with the results covered, to be filled in."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """A file to write to, in place of the terminal."""
    force: Flag = False
    """Replace the file if it exists."""


def main(options: Explain) -> int:
    """The command; its exit status is 0."""
    options = replace(options, format=_format(options))
    way = _way(options)
    _check_out(options)
    if way == "rule":
        _write(options, derivation_document(derive(options.rule, options.seed)))
        return 0
    several = options.format in ("html", "json")
    worked = _problem(options, way).worked(options.learning_rate, options.steps, several)
    if not several:
        _write(options, network_document(worked))
        return 0
    data: dict[str, Any] = to_json(worked)
    if options.format == "json":
        _out(options, json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        _out(options, _page({**data, "quiz": options.quiz}))
    return 0


def _format(options: Explain) -> Format:
    """The format that was chosen, or what the file's suffix says."""
    of_suffix = SUFFIXES.get(options.out.suffix.lower()) if options.out else None
    if options.format and of_suffix and options.format != of_suffix:
        raise InputError(f"explain: --out {options.out} is a file for --format {of_suffix}, got {options.format}")
    return options.format or of_suffix or "text"


def _way(options: Explain) -> str:
    """Which of the ways to say what is explained was taken."""
    given = [name for name in WAYS if getattr(options, name)]
    if len(given) > 1:
        ways, both = (", ".join(map(_typed, WAYS)), " and ".join(map(_typed, given)))
        raise InputError(f"explain: expected one of {ways}, got {both}")
    way = given[0] if given else "question"
    instead = f", not with {_typed(way)}" if given else ""
    for name, ways in (("batch", ("sizes",)), ("activation", ("sizes",)), ("loss", ("sizes", "target"))):
        if getattr(options, name) != getattr(Explain, name) and way not in ways:
            raise InputError(f"explain: {_typed(name)} goes with {' or '.join(map(_typed, ways))}{instead}")
    for name in ("learning_rate", "steps"):
        if way == "rule" and getattr(options, name) is not None:
            raise InputError(f"explain: {_typed(name)} goes with networks, not with --rule")
    if way == "rule" and options.format in ("html", "json"):
        raise InputError(f"explain: --rule goes with --format text, markdown or latex, not with {options.format}")
    if options.quiz and options.format != "html":
        raise InputError(f"explain: --quiz goes with --format html, not with {options.format}")
    return way


def _typed(name: str) -> str:
    """An option as it is typed."""
    return "TARGET" if name == "target" else f"--{name.replace('_', '-')}"


def _problem(options: Explain, way: str) -> Problem:
    if way == "sizes":
        return questions.network(options.sizes, options.batch, options.activation, options.loss, options.seed)
    if way == "target":
        return questions.from_target(options.target, _returned(options.target), options.loss)
    return questions.chain() if way == "chain" else questions.question()


def _returned(target: str) -> object:
    """What the user's function returns."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current directory, as `python -m` has it
    function = load("target", target, command="explain")
    if not callable(function):
        raise InputError(f"explain: target must be a function, got {target}: {describe(function)}")
    try:
        with jax.enable_x64(True):
            return function()
    except (Exception, SystemExit) as error:
        raise InputError(f"explain: {target} raised {raised(error)}") from None


def _page(data: dict[str, Any]) -> str:
    from handgrad.explain.page import page

    try:
        return page(data)
    except ModuleNotFoundError as error:
        raise InputError(str(error)) from None


def _check_out(options: Explain) -> None:
    """Refuse a file that exists or can't be written, before any work."""
    if options.out is None:
        return
    if options.out.is_dir():
        raise InputError(f"explain: --out must be a file, got {options.out}, which is a folder")
    if options.out.exists() and not options.force:
        raise InputError(f"explain: --out must be a new file, got {options.out}, which exists; --force replaces it")
    check_writable("explain", "out", options.out)


def _write(options: Explain, document: Document) -> None:
    if options.out is None and options.format == "text":
        show(document, Console())
    else:
        _out(options, AS_TEXT[options.format or "text"](document))


def _out(options: Explain, text: str) -> None:
    if options.out is None:
        sys.stdout.write(text)
        return
    try:
        options.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"explain: {options.out} can't be written ({error.strerror})") from None
    Console().print(f"written: {options.out}", soft_wrap=True, markup=False, highlight=False)
