"""What can be worked through: the question's weight, two weights, a small network, a network of the user's."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from handgrad import layers
from handgrad.checks import InputError, check_choice, check_count, check_positive, describe
from handgrad.explain.work import LARGEST, work
from handgrad.explain.worked import Worked
from handgrad.layers import Layer, LinearParams, Loss

ACTIVATIONS = (
    *("identity", "sigmoid", "tanh", "softplus", "relu", "leaky_relu", "elu", "selu", "squared_relu"),
    *("hard_sigmoid", "hard_swish", "silu", "mish", "gelu", "softmax", "log_softmax"),
)
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def _tenths(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers of one decimal from −0.9 to 0.9, none of them 0."""
    return rng.integers(1, 10, shape) * rng.choice([-1, 1], shape) / 10


def _linear(W: np.ndarray, b: np.ndarray | None = None) -> LinearParams:
    """In float64, whatever JAX's default is; `work` makes JAX arrays of them."""
    return LinearParams(W, b)  # type: ignore[arg-type]


TARGETS: dict[str, Draw] = {
    **dict.fromkeys(("squared_error", "l2_loss", "absolute_error", "huber_loss"), _tenths),
    "softmax_cross_entropy": lambda rng, batch, n: rng.integers(0, n, batch),
    "sigmoid_cross_entropy": lambda rng, batch, n: rng.integers(0, 2, (batch, n)).astype(float),
    "poisson_loss": lambda rng, batch, n: rng.integers(0, 4, (batch, n)).astype(float),
    "hinge_loss": lambda rng, batch, n: rng.choice([-1.0, 1.0], (batch, n)),
}


class Problem(NamedTuple):
    """A network and its numbers, and how it is trained.

    Attributes:
      model, loss, params, x, target: as for `work`.
      learning_rate, steps: unless others are asked for.
      title, intro: in words.
      ratio: from one learning rate to the next, of the nine that the page compares.
      below: how many of them are below the chosen one.
    """

    model: Layer
    loss: Loss
    params: PyTree
    x: Any
    target: Any
    learning_rate: float
    steps: int
    title: str
    intro: str
    ratio: float = 2.0
    below: int = 4

    def rates(self, rate: float) -> tuple[float, ...]:
        """Nine learning rates, `rate` among them, each so many times the one before."""
        return tuple(rate if k == 0 else rate * self.ratio**k for k in range(-self.below, 9 - self.below))

    def worked(self, learning_rate: float | None = None, steps: int | None = None, several: bool = False) -> Worked:
        """Worked through, at one learning rate or at several."""
        rate = self.learning_rate if learning_rate is None else learning_rate
        check_positive("explain", "learning_rate", rate)
        return work(
            *self[:5],
            learning_rate=rate,
            steps=self.steps if steps is None else steps,
            rates=self.rates(rate) if several else (),
            title=self.title,
            intro=self.intro,
        )


def question() -> Problem:
    """The single weight of the question that this library answers: 5.7 w = 50.1, from w = −23.1."""
    a, rate = 5.7, 0.007
    return Problem(
        layers.linear(1, bias=False),
        layers.squared_error(),
        _linear(np.array([[-23.1]])),
        np.array([[a]]),
        np.array([[50.1]]),
        rate,
        20,
        "The question: one weight",
        "A weight w turns a = 5.7 into a w, which should be 50.1. It begins at w = −23.1, and every matrix is 1 × 1. "
        "Each step multiplies the error of w by 1 − 2 r a², r being the learning rate: it arrives in one step at "
        f"r = 1/(2a²) = {1 / (2 * a * a):.4g}, and the error grows beyond r = 1/a² = {1 / (a * a):.4g}.",
        ratio=math.sqrt(1 / (2 * a * a) / rate),  # the second rate above is 1/(2a²); the last two are above 1/a²
        below=3,
    )


def chain() -> Problem:
    """The question's second network: two weights in a row."""
    model = layers.chain(layers.linear(1, bias=False), layers.linear(1, bias=False))
    return Problem(
        model,
        layers.squared_error(),
        (_linear(np.array([[0.8]])), _linear(np.array([[1.3]]))),
        np.array([[5.7]]),
        np.array([[50.1]]),
        2e-4,
        40,
        "The question: two weights",
        "a(L−1) = a(L−2) W(L−1) and a(L) = a(L−1) W(L), which should be 50.1. Layer 1 is W(L−1), layer 2 is W(L). "
        "The input 5.7 and the target are the question's; it gives no second weight, so both begin at numbers of our "
        "choice, 0.8 and 1.3, and the learning rate is 0.0002. Both gradients are computed at the old weights.",
    )


def network(sizes: str, batch: int, activation: str, loss: str, seed: int = 0) -> Problem:
    """Linear layers of these sizes, "3,2", with an activation between them, and readable random numbers.

    Raises:
      InputError: sizes, batch or seed that can't be, an activation or a loss that is unknown.
    """
    widths = _sizes(sizes)
    check_count("explain", "batch", batch)
    check_choice("explain", "activation", activation, ACTIVATIONS)
    check_choice("explain", "loss", loss, tuple(TARGETS))
    if not 0 <= seed < 2**32:
        raise InputError(f"explain: seed must be at least 0 and below 2**32, got {seed}")
    size = sum(a * b + b for a, b in pairwise(widths)) + batch * sum(widths)
    if size > LARGEST:
        raise InputError(
            f"explain: sizes and batch must give at most {LARGEST:,} numbers in a step, got {size:,} for sizes {sizes} "
            f"and batch {batch}"
        )
    rng = np.random.default_rng(seed)
    x, params, parts = _tenths(rng, batch, widths[0]), [], []
    for n_in, n_out in pairwise(widths):
        params += [_linear(_tenths(rng, n_in, n_out), _tenths(rng, n_out)), ()]
        parts += [layers.linear(n_out), getattr(layers, activation)()]
    if len(widths) > 2:
        params, parts = params[:-1], parts[:-1]
    words = activation.replace("_", " ")
    many = "1 example" if batch == 1 else f"{batch} examples"
    return Problem(
        layers.chain(*parts),
        getattr(layers, loss)(),
        tuple(params),
        x,
        TARGETS[loss](rng, batch, widths[-1]),
        0.1,
        20,
        f"A network of sizes {', '.join(map(str, widths))}",
        f"{'Linear layers' if len(widths) > 2 else 'A linear layer'} and {words}, {many}, "
        f"and the {loss.replace('_', ' ')}{' averaged over them' if batch > 1 else ''}. Each example is a row.",
    )


def from_target(name: str, returned: object, loss: str) -> Problem:
    """The network that the user's function `name` returned.

    Args:
      returned: (model, params, x, target), or with a loss as the fifth.
      loss: the name of the loss where none is returned.
    Raises:
      InputError: it returned something else.
    """
    form = "(model, params, x, target), or with a loss as the fifth"
    if not isinstance(returned, tuple | list) or len(returned) not in (4, 5):
        count = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
        raise InputError(f"explain: {name} must return {form}, got {describe(returned)}{count}")
    model, params, x, target, *given = returned
    if not isinstance(model, Layer):
        raise InputError(f"explain: {name} must return {form}, got {describe(model)} in the place of the model")
    if given and not isinstance(given[0], Loss):
        raise InputError(f"explain: {name} must return {form}, got {describe(given[0])} in the place of the loss")
    if not given:
        check_choice("explain", "loss", loss, tuple(TARGETS))
    return Problem(
        model, given[0] if given else getattr(layers, loss)(), params, x, target, 0.1, 20, f"{name}, worked through", ""
    )


def _sizes(sizes: str) -> list[int]:
    parts = sizes.split(",")
    widths = [int(part) for part in parts if part.strip().isdecimal()]
    if len(widths) != len(parts) or len(widths) < 2 or min(widths) < 1:
        raise InputError(f"explain: sizes must be two positive integers or more, as in 3,2, got {sizes!r}")
    return widths
