"""What a row of the table is, the draws that rows share, and a row as a program: by hand and by autodiff."""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from handgrad import rules

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Case:
    """One row.

    Attributes:
      op: the rule, `<op>_forward` and `<op>_backward` of handgrad.rules.
      name: what is special about these inputs.
      draw: random generator -> arguments, NumPy float64, integers, booleans or a JAX random key; None where one is
        left away.
      reference: the forward pass again, in plain jax.numpy: (*arguments, **options) -> output.
      options: the rule's keyword-only options.
      rtol: the bar in float64, a share of the largest element; more than 1e-12 says why beside the row.
      ratio: in reduced dtypes, at most so many times autodiff's own error.
      roundings: above a floor of so many roundings, one after the other, in the worst direction.
      reduced: the reduced dtypes that the operation has.
    """

    op: str
    name: str
    draw: Draw
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-12
    ratio: float = 2.0
    roundings: int = 8
    reduced: tuple[Any, ...] = (jnp.float32, jnp.bfloat16)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    @property
    def of_values(self) -> dict[str, Any]:
        """The options that say what is computed; `residuals` says what is kept, and is the forward pass's alone."""
        return {name: value for name, value in self.options.items() if name != "residuals"}


def normal(*shapes: tuple[int, ...], scale: float = 1.0) -> Draw:
    return lambda rng: tuple(scale * rng.standard_normal(shape) for shape in shapes)


def fixed(*arrays: Any) -> Draw:
    return lambda rng: tuple(np.asarray(a) for a in arrays)


def with_target(shape: tuple[int, ...], target: Callable[..., Any], scale: float = 1.0) -> Draw:
    """Normal predictions or logits, and a target drawn by target(rng, shape)."""
    return lambda rng: (scale * rng.standard_normal(shape), target(rng, shape))


def numbers(rng, shape):
    return rng.standard_normal(shape)


def probabilities(rng, shape):
    return rng.uniform(0, 1, shape)


def integers(rng, shape):
    return rng.integers(0, 2, shape)


def labels(rng, shape):
    return rng.integers(0, shape[-1], shape[:-1])


def distributions(rng, shape):
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def per_example(C):
    return jnp.sum(C.reshape(C.shape[0], -1), axis=1)


def elementwise(op: str, reference: Callable[..., Any], extreme: bool = True, **options: Any) -> list[Case]:
    """The rows of an activation that acts on each element alone."""
    suffix = "".join(f"-{value}" for value in options.values())
    rows = [
        Case(op, f"rows{suffix}", normal((5, 7), scale=2.0), reference, options),
        Case(op, f"tokens{suffix}", normal((3, 2, 4)), reference, options),
        Case(op, f"single{suffix}", normal((1, 1)), reference, options),
        Case(op, f"zero{suffix}", fixed(np.array([[0.0, -0.0], [1.0, -1.0]])), reference, options),
    ]
    if extreme:
        rows.append(Case(op, f"1e4{suffix}", fixed(np.array([[1e4, -1e4, 30.0, -30.0, 0.5]])), reference, options))
    return rows


def along_rows(op: str, reference: Callable[..., Any]) -> list[Case]:
    """The rows of an operation along the last axis."""
    return [
        Case(op, "rows", normal((5, 7), scale=2.0), reference),
        Case(op, "tokens", normal((3, 2, 4)), reference),
        Case(op, "ties", fixed(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]])), reference),
        Case(op, "1e4", fixed(np.array([[1e4, -1e4, 1e4 - 1.0], [-1e4, -1e4 + 2.0, 0.0]])), reference),
    ]


def is_floating(a) -> bool:
    return a is not None and jnp.issubdtype(a.dtype, jnp.floating)


def in_dtype(a, dtype):
    """A drawn argument as a JAX array: numbers in a dtype, whatever else as it is."""
    if a is None or isinstance(a, jax.Array):
        return a
    a = np.asarray(a)
    return jnp.asarray(a, dtype if np.issubdtype(a.dtype, np.floating) else None)


def rule_of(case: Case):
    """The forward and the backward pass of a row, its options settled."""
    return (
        functools.partial(getattr(rules, case.op).forward, **case.options),
        functools.partial(getattr(rules, case.op).backward, **case.of_values),
    )


def by_hand(case: Case):
    """(dY, *arguments) -> (Y, cotangents), factors multiplied out."""
    forward, backward = rule_of(case)

    def run(dY, *arguments):
        Y, residuals = forward(*arguments)
        cotangents = hg.materialize(backward(residuals, dY))
        assert all(c is None for c in cotangents[len(arguments) :])  # of arguments left to their defaults
        return Y, cotangents[: len(arguments)]

    return run


def by_autodiff(case: Case):
    """The same of the row's reference, by jax.vjp; None for an integer argument, as a rule says it."""

    def run(dY, *arguments):
        Y, pullback = jax.vjp(functools.partial(case.reference, **case.of_values), *arguments)
        cotangents = pullback(jax.tree.map(lambda dy, y: dy.astype(y.dtype), dY, Y))
        return Y, tuple(None if c is None or c.dtype == jax.dtypes.float0 else c for c in cotangents)

    return run


@functools.cache
def drawn(case: Case, dtype=jnp.float64):
    """The row's arguments in a dtype, and a cotangent that is neither ones nor constant."""
    rng = np.random.default_rng(zlib.crc32(str(case).encode()))
    arguments = tuple(in_dtype(a, dtype) for a in case.draw(rng))
    Y = jax.eval_shape(functools.partial(case.reference, **case.of_values), *arguments)
    return jax.tree.map(lambda y: jnp.asarray(rng.standard_normal(y.shape), y.dtype), Y), *arguments
