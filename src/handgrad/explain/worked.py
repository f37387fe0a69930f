"""What `work` returns: a network's training steps, every matrix of them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array

from handgrad.explain.equations import Equation

Matrix = Array | np.ndarray
Index = tuple[int, ...]


@dataclass(frozen=True)
class Checked:
    """A gradient by other means.

    Attributes:
      autodiff: jax.grad's.
      index: the entry that is the largest.
      difference: that entry as a central difference of the loss.
    """

    autodiff: Matrix
    index: Index
    difference: float


@dataclass(frozen=True)
class Gradient:
    """A parameter's gradient.

    Attributes:
      value: by hand.
      A: what the weight was multiplied with, a row for each example or token; None where the gradient is not AᵀΔ.
      Delta: the cotangent of the product; of a bias, whose gradient is Δᵀ1, too. None otherwise.
      checked: the same gradient by other means; None in all steps but the first.
    """

    value: Matrix
    A: Matrix | None = None
    Delta: Matrix | None = None
    checked: Checked | None = None


@dataclass(frozen=True)
class LayerStep:
    """A layer in one step; dX is None where X is of integers.

    Attributes:
      X, Y, dY, dX: what enters, what leaves, and their cotangents.
      params, grads, updated: by the parameters' names; `updated` after the step.
    """

    X: Matrix
    Y: Matrix
    dY: Matrix
    dX: Matrix | None
    params: dict[str, Matrix]
    grads: dict[str, Gradient]
    updated: dict[str, Matrix]


@dataclass(frozen=True)
class Step:
    """One step: the mean loss before it, each example's loss, the target, the prediction's cotangent, the layers; and
    what else the loss's equations name, by its letter."""

    loss: float
    losses: Matrix
    target: Matrix
    dprediction: Matrix
    layers: tuple[LayerStep, ...]
    parts: dict[str, Matrix]


@dataclass(frozen=True)
class Run:
    """The steps at one learning rate; `diverged` where the loss grew from the first step to the last."""

    rate: float
    diverged: bool
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Form:
    """A layer, whatever its numbers.

    Attributes:
      name, kind: its place and the function that makes it.
      forward, backward: its equations.
      params: names of its parameters.
      outer: those whose gradient is AᵀΔ.
    """

    name: str
    kind: str
    forward: Equation
    backward: tuple[Equation, ...]
    params: tuple[str, ...]
    outer: tuple[str, ...]


@dataclass(frozen=True)
class LossForm:
    """A loss: the function that makes it, and its two equations."""

    kind: str
    forward: Equation
    backward: Equation


@dataclass(frozen=True)
class Worked:
    """A network worked through.

    Attributes:
      title, intro: what it is.
      rate: which of `runs` is at the learning rate that was chosen.
      batch: number of examples.
      layers, loss: the equations.
      runs: the numbers, for each learning rate.
    """

    title: str
    intro: str
    rate: int
    batch: int
    layers: tuple[Form, ...]
    loss: LossForm
    runs: tuple[Run, ...]

    @property
    def equations(self) -> list[Equation]:
        """All of them."""
        of_layers = [equation for form in self.layers for equation in (form.forward, *form.backward)]
        return [*of_layers, self.loss.forward, self.loss.backward]

    @property
    def run(self) -> Run:
        """The run at the chosen rate."""
        return self.runs[self.rate]
