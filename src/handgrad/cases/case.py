"""What a row of the table is, and the draws that rows of several families share."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from handgrad.rules import Rule

Rng = np.random.Generator
Shape = tuple[int, ...]
Arrays = tuple[Any, ...]
Draw = Callable[[Rng], Arrays]
Function = Callable[..., Any]  # (*arguments, **options) -> the rule's output


@dataclass(frozen=True, eq=False)
class Case:
    """A rule on one kind of input.

    Attributes:
      rule: the rule.
      name: what is special about these inputs.
      draw: random generator -> the rule's arguments: NumPy arrays of float64, integers or booleans, or a JAX random
        key; None in the place of an omitted one.
      reference: the forward pass in plain jax.numpy, written independently: it calls nothing of handgrad.
      options: keyword-only options of the rule; the reference and the peer take the same, except `residuals`.
      peer: the same operation by somebody else: jax.nn, optax. `handgrad check` compares with it where there is one.
      tests_only: the tests run this row and `handgrad check` doesn't: an edge, a kink, a tie, a special shape. The
        others have numbers of which no two are alike, away from kinks.
      estimator: the backward pass is by design no derivative (straight-through, score function). The reference is its
        surrogate, with jax.lax.stop_gradient: finite differences, which see the value alone, don't verify it.
      rtol: the tolerance in float64, relative to the largest element; more than 1e-12 has its reason beside the row.
      ratio: in reduced dtypes, at most this many times autodiff's own error,
      roundings: above a floor of this many roundings, one after the other, in the worst direction.
      reduced: the reduced dtypes that the operation has.
    """

    rule: Rule[..., Any]
    name: str
    draw: Draw
    reference: Function
    options: dict[str, Any] = field(default_factory=dict)
    peer: Function | None = None
    tests_only: bool = False
    estimator: bool = False
    rtol: float = 1e-12
    ratio: float = 2.0
    roundings: int = 8
    reduced: Sequence[Any] = (jnp.float32, jnp.bfloat16)

    def __str__(self) -> str:
        """The rule, its inputs and its options: "gelu rows approximate=True"."""
        return " ".join([self.op, self.name, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def op(self) -> str:
        """The rule's name: "gelu"."""
        return self.rule.__name__

    @property
    def of_values(self) -> dict[str, Any]:
        """The options that say what is computed; `residuals` says what is kept, and is the forward pass's alone."""
        return {name: value for name, value in self.options.items() if name != "residuals"}

    @property
    def settled(self) -> Rule[..., Any]:
        """The rule with these options."""
        return self.rule.with_options(**self.options)

    @property
    def expected(self) -> Function:
        """The reference with these options."""
        return partial(self.reference, **self.of_values)

    def arguments(self, seed: int = 0) -> Arrays:
        """The arguments for a seed; two rows have different ones."""
        return self.draw(np.random.default_rng([seed, zlib.crc32(str(self).encode())]))


edge = partial(Case, tests_only=True)


def normal(*shapes: Shape, scale: float = 1.0) -> Draw:
    """Normal numbers."""
    return lambda rng: tuple(scale * rng.standard_normal(shape) for shape in shapes)


def fixed(*arrays: Any) -> Draw:
    """These numbers, whatever the seed."""
    return lambda rng: tuple(np.asarray(a) for a in arrays)


def with_target(shape: Shape, target: Callable[[Rng, Shape], Any], scale: float = 1.0) -> Draw:
    """Normal predictions or logits, and a target drawn by target(rng, shape)."""
    return lambda rng: (scale * rng.standard_normal(shape), target(rng, shape))


def per_example(C: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    """The sum of each example's losses."""
    return jnp.sum(C.reshape(C.shape[0], -1), axis=1)


def affine(A: Array, gamma: Array | None, beta: Array | None) -> Array:
    """A γ + β, where there are any."""
    A = A if gamma is None else A * jnp.broadcast_to(gamma, A.shape)
    return A if beta is None else A + jnp.broadcast_to(beta, A.shape)
