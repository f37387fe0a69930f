"""A rule's derivation with numbers: pushforward, inner product, rearranged, read off.

The rule's arguments are those of its first row in `handgrad.cases`, with fewer examples where it has many. The
pushforward is jax.jvp of the row's independent reference; the cotangents are the rule's own.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad import rules
from handgrad.cases import Case, first_rows
from handgrad.checks import check_choice
from handgrad.explain.worked import Matrix
from handgrad.factors import materialize

EXAMPLES = 2  # that are kept
AGREE = 1e-6  # a cut is taken where both sides agree on it, relative to the largest element
Arrays = tuple[Any, ...]


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
      options: those of the row, as they are written in a call.
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
        given = tuple(_array(a) for a in case.arguments(seed))
        fewer = _cut(case, given)
        for chosen in (_rounded(fewer), fewer, _rounded(given), given):
            arguments, outputs, inner = _numbers(case, chosen, seed)
            if _agree(arguments, outputs, case.estimator):
                break
    forward, backward = case.rule
    return Derivation(
        name,
        ", ".join(f"{option}={value!r}" for option, value in case.of_values.items()),
        case.estimator,
        _lines(forward, formulas=False),
        _lines(backward, formulas=True),
        _page(forward),
        arguments,
        outputs,
        inner,
    )


def _numbers(case: Case, given: Arrays, seed: int) -> tuple[tuple[Argument, ...], tuple[Output, ...], float]:
    """All numbers of the derivation, in one program."""
    names = list(inspect.signature(case.rule.forward).parameters)
    moving = [i for i, a in enumerate(given) if _moves(a)]
    rng = np.random.default_rng(seed)

    def at(*leaves: Array) -> Any:
        inner = list(given)
        for i, leaf in zip(moving, leaves, strict=True):
            inner[i] = leaf
        return case.expected(*inner)

    start = [given[i] for i in moving]
    tangents = [_tenths(rng, a) for a in start]
    dY = jax.tree.map(lambda y: _tenths(rng, y), jax.eval_shape(at, *start))

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
    arguments = [Argument(name, np.asarray(a)) for name, a in zip(names, given, strict=False) if _shows(a)]
    of_name = {argument.name: k for k, argument in enumerate(arguments)}
    for i, tangent, hand, autodiff in zip(moving, tangents, of_hand, of_autodiff, strict=True):
        tangent = np.asarray(tangent)
        inner = float(np.sum(hand * tangent).real)
        arguments[of_name[names[i]]] = Argument(names[i], np.asarray(given[i]), tangent, hand, autodiff, inner)
    total = sum(float(np.sum(output.cotangent * output.tangent).real) for output in outputs)
    return tuple(arguments), outputs, total


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


def _rounded(given: Arrays) -> Arrays:
    """Numbers of one decimal, which are easier to read."""
    return tuple(jnp.round(a, 1) + 0.0 if _moves(a) else a for a in given)


def _cut(case: Case, given: Arrays) -> Arrays:
    """The arguments with their first two examples alone, where both the rule and its reference take them."""
    batch = next((len(a) for a in given if _moves(a) and a.ndim), 0)
    if batch <= EXAMPLES:
        return given
    fewer = tuple(a[:EXAMPLES] if _shows(a) and a.ndim and len(a) == batch else a for a in given)
    try:
        ours = jax.eval_shape(lambda *a: case.settled.forward(*a)[0], *fewer)
        theirs = jax.eval_shape(case.expected, *fewer)
    except Exception:  # whatever a function says to arguments that don't fit together
        return given
    shapes = [jax.tree.map(lambda y: y.shape, y) for y in (ours, theirs)]
    return fewer if shapes[0] == shapes[1] else given


def _array(a: Any) -> Any:
    return a if a is None or isinstance(a, jax.Array) else jnp.asarray(a)


def _moves(a: Any) -> bool:
    return a is not None and jnp.issubdtype(a.dtype, jnp.inexact)


def _shows(a: Any) -> bool:
    """Whether it is an array of numbers: not an omitted argument, nor a random key, which may be words of 32 bits."""
    return a is not None and not jnp.issubdtype(a.dtype, jax.dtypes.prng_key) and a.dtype != jnp.uint32


def _tenths(rng: np.random.Generator, like: Any) -> Array:
    """Random numbers of one decimal, as many as `like` has."""

    def drawn() -> np.ndarray:
        return np.round(rng.standard_normal(like.shape), 1) + 0.0

    return jnp.asarray(drawn() + 1j * drawn() if jnp.issubdtype(like.dtype, jnp.complexfloating) else drawn())


def _lines(function: Any, formulas: bool) -> tuple[str, ...]:
    """The docstring up to its sections: the lines that are indented, formulas, or the first two paragraphs."""
    text = (inspect.getdoc(function) or "").split("\nArgs:")[0].split("\nDerivation:")[0].split("\nRaises:")[0]
    if formulas:
        lines = [line for line in text.split("\n") if line.startswith("    ") and line.strip()]
        return tuple(line[4:] for line in lines)
    return tuple(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")[:2])


def _page(function: Any) -> str:
    """The page that the docstring names."""
    _, _, page = (inspect.getdoc(function) or "").partition("Derivation: ")
    return page.split()[0] if page else ""
