"""What a row is, and the draws that rows share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from handgrad import rules

Arrays = tuple[Any, ...]
Draw = Callable[[np.random.Generator], Arrays]


@dataclass(frozen=True, eq=False)
class Entry:
    """One row: a rule on one kind of input.

    Attributes:
      op: the rule, `<op>_forward` and `<op>_backward` of handgrad.rules.
      inputs: what the inputs are, in a word: "rows", "tokens", "labels".
      draw: random generator -> arguments: NumPy float64, or integers. Both signs, and no two alike.
      reference: (*arguments, **options) -> output, written independently.
      options: the rule's keyword-only options; the reference takes them under the same names.
      pair: (forward, backward) where they are not the ones that `op` names.
    """

    op: str
    inputs: str
    draw: Draw
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    pair: tuple[Callable[..., Any], Callable[..., Any]] | None = None

    @property
    def name(self) -> str:
        """The rule and its inputs, as "gelu tokens approximate=True"."""
        return " ".join([self.op, self.inputs, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def forward(self) -> Callable[..., Any]:
        """(*arguments) -> (output, residuals), with its options."""
        return partial(self.pair[0] if self.pair else getattr(rules, self.op).forward, **self.options)

    @property
    def backward(self) -> Callable[..., Any]:
        """(residuals, cotangent) -> cotangents, with its options; what was kept, it sees."""
        return partial(self.pair[1] if self.pair else getattr(rules, self.op).backward, **self._of_values)

    @property
    def target(self) -> Callable[..., Any]:
        """The reference, with its options; it keeps nothing."""
        return partial(self.reference, **self._of_values)

    @property
    def _of_values(self) -> dict[str, Any]:
        """The options that say what is computed, not what is kept."""
        return {name: value for name, value in self.options.items() if name != "residuals"}

    def arguments(self, seed: int) -> Arrays:
        """The arguments for a seed; two rows have different ones."""
        return self.draw(np.random.default_rng([seed, *self.name.encode()]))


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Normal numbers."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def beside(shape: tuple[int, ...], target: Callable[..., Any]) -> Draw:
    """Normal predictions or logits, and the target target(rng, shape)."""
    return lambda rng: (rng.standard_normal(shape), target(rng, shape))


def inside(shape: tuple[int, ...], target: Callable[..., Any]) -> Draw:
    """Probabilities away from 0 and 1, and the target target(rng, shape)."""
    return lambda rng: (rng.uniform(0.05, 0.95, shape), target(rng, shape))


def numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A target of a regression."""
    return rng.standard_normal(shape)


def probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A target of each element's own yes or no."""
    return rng.uniform(0.05, 0.95, shape)


def integers(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """The same, decided: 0 and 1."""
    return rng.integers(0, 2, shape)


def labels(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A label for each row of logits."""
    return rng.integers(0, shape[-1], shape[:-1])


def distributions(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """A distribution for each row of logits."""
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def per_example(C: Any) -> Any:
    """One loss for each example."""
    return jnp.sum(C.reshape(C.shape[0], -1), axis=1)
