"""A rule's derivation with numbers: pushforward, inner product, rearranged, read off.

The rule's arguments are those of its first row in `handgrad.cases`, with fewer examples where it has many. The
pushforward is jax.jvp of the row's independent reference; the cotangents are the rule's own. Where an array is large
all the same, there is one example, and axes are cut.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases import Case, first_rows
from handgrad.checks import check_choice
from handgrad.explain.arguments import EXAMPLES, Arrays, as_array, cut, moves, rounded, shows, smaller, tenths
from handgrad.explain.worked import Matrix
from handgrad.factors import materialize

FAINT = 1e-3  # of the largest cotangent: other inputs are tried where one of them is smaller
AGREE = 1e-6  # a cut is taken where both sides agree on it, relative to the largest element


@dataclass(frozen=True)
class Argument:
    """One argument of a rule.

    Attributes:
      name: as in the forward pass's signature.
      value: the argument.
      tangent, cotangent, autodiff: Ẋ, dX by hand and by jax.vjp of the reference; None where it has no cotangent.
      inner: ⟨dX, Ẋ⟩.
    """

    name: str
    value: Matrix
    tangent: Matrix | None = None
    cotangent: Matrix | None = None
    autodiff: Matrix | None = None
    inner: float = 0.0


@dataclass(frozen=True)
class Output:
    """One output of a rule: by hand, by the reference, its tangent, that as a difference quotient, its cotangent."""

    name: str
    value: Matrix
    reference: Matrix
    tangent: Matrix
    difference: Matrix
    cotangent: Matrix


@dataclass(frozen=True)
class Derivation:
    """The four steps of one rule, in numbers.

    Attributes:
      name: the rule.
      options: those in use, with their values.
      estimator: whether the backward pass is no derivative by design.
      forward: the first two paragraphs of the forward pass's docstring.
      backward: the lines of mathematics in the backward pass's.
      page: the derivation's page.
      arguments, outputs: the numbers.
      inner: ⟨dY, Ẏ⟩, which the arguments' ⟨dX, Ẋ⟩ add up to.
    """

    name: str
    options: str
    estimator: bool
    forward: tuple[str, ...]
    backward: tuple[str, ...]
    page: str
    arguments: tuple[Argument, ...]
    outputs: tuple[Output, ...]
    inner: float


def rule_names() -> list[str]:
    """The names of all rules of `handgrad.rules`, from A to Z."""
    return sorted(name for name, value in vars(rules).items() if isinstance(value, rules.Rule))


def derive(name: str, seed: int = 0) -> Derivation:
    """A rule's derivation, on the first of its rows in `handgrad.cases`.

    Args:
      name: of a rule in `handgrad.rules`.
      seed: of its arguments, tangents and cotangents.
    Raises:
      InputError: no rule has this name.
    """
    check_choice("explain", "rule", name, rule_names())
    case = first_rows()[name]
    with jax.enable_x64(True):
        given = tuple(as_array(a) for a in case.arguments(seed))
        fewer = cut(case, given, EXAMPLES)
        small = smaller(case, fewer)
        three = cut(case, given, EXAMPLES + 1)
        agreeing = (
            numbers
            for chosen in {id(one): one for one in (small, fewer, three, given)}.values()
            for with_decimals in (rounded(chosen), chosen)
            if (numbers := _numbers(case, with_decimals, seed))
            and _agree(numbers.arguments, numbers.outputs, case.estimator)
        )
        first = next(agreeing, None) or _numbers(case, given, seed)
        found = first if _tells(first) else next(filter(_tells, agreeing), first)
    forward, backward = case.rule
    return Derivation(
        name,
        ", ".join(f"{option} = {value!r}" for option, value in _options(case).items()),
        case.estimator,
        tuple(" ".join(paragraph.split()) for paragraph in _said(forward).strip().split("\n\n")[:2]),
        _formulas(backward, plain=not case.of_values),
        _page(forward),
        *found,
    )


class _Numbers(NamedTuple):
    """Those of a derivation."""

    arguments: tuple[Argument, ...]
    outputs: tuple[Output, ...]
    inner: float


def _numbers(case: Case, given: Arrays, seed: int) -> _Numbers:
    """All numbers of the derivation, in one program."""
    names = list(inspect.signature(case.rule.forward).parameters)
    moving = [i for i, a in enumerate(given) if moves(a)]
    rng = np.random.default_rng(seed)

    def at(*leaves: Array) -> Any:
        inner = list(given)
        for i, leaf in zip(moving, leaves, strict=True):
            inner[i] = leaf
        return case.expected(*inner)

    start = [given[i] for i in moving]
    tangents = [tenths(rng, a) for a in start]
    dY = jax.tree.map(lambda y: tenths(rng, y), jax.eval_shape(at, *start))

    def program(start: list[Array], tangents: list[Array], dY: Any) -> tuple[Any, ...]:
        inner = list(given)
        for i, leaf in zip(moving, start, strict=True):
            inner[i] = leaf
        Y, residuals = case.settled.forward(*inner)
        by_hand = materialize(case.settled.backward(residuals, dY))
        reference, Y_dot = jax.jvp(at, start, tangents)
        h = 2.0**-17
        above, below = (at(*(a + s * h * t for a, t in zip(start, tangents, strict=True))) for s in (1, -1))
        difference = jax.tree.map(lambda a, b: (a - b) / (2 * h), above, below)
        autodiff = jax.vjp(at, *start)[1](dY)
        return (Y, reference, Y_dot, difference, dY), [by_hand[i] for i in moving], autodiff

    of_outputs, of_hand, of_autodiff = jax.tree.map(np.asarray, jax.jit(program)(start, tangents, dY))
    columns = [jax.tree.leaves(values) for values in of_outputs]
    labels = _outputs(case, len(columns[0]))
    outputs = tuple(Output(label, *row) for label, *row in zip(labels, *columns, strict=True))
    arguments = [Argument(name, np.asarray(a)) for name, a in zip(names, given, strict=False) if shows(a)]
    of_name = {argument.name: k for k, argument in enumerate(arguments)}
    for i, tangent, hand, autodiff in zip(moving, tangents, of_hand, of_autodiff, strict=True):
        tangent = np.asarray(tangent)
        inner = float(np.sum(hand * tangent).real)
        arguments[of_name[names[i]]] = Argument(names[i], np.asarray(given[i]), tangent, hand, autodiff, inner)
    total = sum(float(np.sum(output.cotangent * output.tangent).real) for output in outputs)
    return _Numbers(tuple(arguments), outputs, total)


def _tells(numbers: _Numbers) -> bool:
    """Whether no cotangent is next to nothing, as that of X where batch_norm has two examples alone."""
    sizes = [np.max(np.abs(a.cotangent), initial=0.0) for a in numbers.arguments if a.cotangent is not None]
    return min(filter(None, sizes), default=1.0) > FAINT * max(sizes, default=0.0)


def _outputs(case: Case, count: int) -> list[str]:
    """Names of the outputs: the cotangent's in the backward pass without its d; numbered where there are several."""
    backward = list(inspect.signature(case.rule.backward).parameters)
    cotangent = backward[1] if len(backward) > 1 and backward[1].startswith("d") else "dY"
    names = cotangent[1:].split("_d")  # "dY_dC" is two
    return names if len(names) == count else [f"{names[0]}_{k + 1}" for k in range(count)]


def _agree(arguments: Sequence[Argument], outputs: Sequence[Output], estimator: bool) -> bool:
    """Whether rule and reference are the same on these arguments, away from kinks."""
    pairs: list[tuple[Matrix | None, Matrix | None]] = [
        (a.cotangent, a.autodiff) for a in arguments if a.cotangent is not None
    ]
    pairs += [(output.value, output.reference) for output in outputs]
    pairs += [] if estimator else [(output.difference, output.tangent) for output in outputs]
    both = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return all(np.max(np.abs(a - b), initial=0) <= AGREE * np.max(np.abs(b), initial=1e-300) for a, b in both)


def _options(case: Case) -> dict[str, Any]:
    """The options that the row has, and the rule's defaults; not what is kept for the backward pass."""
    parameters = inspect.signature(case.rule.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "residuals"}
    return {name: value for name, value in {**defaults, **case.of_values}.items() if value is not None}


def _said(function: Any) -> str:
    """The docstring up to its sections."""
    return (inspect.getdoc(function) or "").split("\nArgs:")[0].split("\nDerivation:")[0].split("\nRaises:")[0]


def _formulas(function: Any, plain: bool) -> tuple[str, ...]:
    """The lines of the docstring that are indented; those of the first block alone for a rule without options, since a
    second block is what options add."""
    paragraphs = (paragraph.split("\n") for paragraph in _said(function).split("\n\n"))
    blocks = [[line[4:] for line in lines if line.startswith("    ") and line.strip()] for lines in paragraphs]
    blocks = [lines for lines in blocks if lines]
    return tuple(line for lines in (blocks[:1] if plain else blocks) for line in lines)


def _page(function: Any) -> str:
    """The page that the docstring names."""
    _, _, page = (inspect.getdoc(function) or "").partition("Derivation: ")
    return page.split()[0] if page else ""
