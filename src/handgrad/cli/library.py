"""The library's own rules, as `handgrad check` meets them: inputs, and a reference that somebody else wrote.

No reference calls anything of handgrad: they are jax.nn's, optax's or a line of jax.numpy. tests/cli/test_library.py
sees to it that every rule of `handgrad.rules` has a row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

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
        return partial(self.pair[0] if self.pair else getattr(rules, f"{self.op}_forward"), **self.options)

    @property
    def backward(self) -> Callable[..., Any]:
        """(residuals, cotangent) -> cotangents, with its options where the backward pass takes them."""
        return partial(self.pair[1] if self.pair else getattr(rules, f"{self.op}_backward"), **self.options)

    @property
    def target(self) -> Callable[..., Any]:
        """The reference, with its options."""
        return partial(self.reference, **self.options)

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


def linear(X: Any, W: Any, b: Any = None) -> Any:
    """X W + b."""
    Y = jnp.einsum("...i,io->...o", X, W)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def softmax_cross_entropy(Z: Any, Y: Any, label_smoothing: float = 0.0) -> Any:
    """optax's, for labels and for distributions."""
    if jnp.issubdtype(Y.dtype, jnp.integer):
        Y = jax.nn.one_hot(Y, Z.shape[-1], dtype=Z.dtype)
    return per_example(optax.losses.softmax_cross_entropy(Z, optax.losses.smooth_labels(Y, label_smoothing)))


def binary_cross_entropy(A: Any, Y: Any) -> Any:
    """From probabilities."""
    return -per_example(Y * jnp.log(A) + (1 - Y) * jnp.log1p(-A))


def huber_loss(A: Any, Y: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.huber_loss(A, Y))


def sigmoid_cross_entropy(Z: Any, Y: Any) -> Any:
    """optax's."""
    return per_example(optax.losses.sigmoid_binary_cross_entropy(Z, Y))


def two_layers(A: Any, W1: Any, B1: Any, W2: Any, B2: Any, Y: Any) -> Any:
    """Nielsen's network of two sigmoid layers under his quadratic cost, for rows of examples."""
    A1 = jax.nn.sigmoid(linear(A, W1, B1))
    return per_example(jnp.square(jax.nn.sigmoid(linear(A1, W2, B2)) - Y) / 2)


def two_layers_forward(A: Any, W1: Any, B1: Any, W2: Any, B2: Any, Y: Any) -> tuple[Any, Any]:
    """The same, and what BP1 to BP4 need."""
    A1 = jax.nn.sigmoid(linear(A, W1, B1))
    A2 = jax.nn.sigmoid(linear(A1, W2, B2))
    return per_example(jnp.square(A2 - Y) / 2), (A, W2, A1, A2, Y, W1)


def two_layers_backward(residuals: Any, dC: Any) -> Arrays:
    """BP1 to BP4 over the mini-batch. The first layer's input and the target are under no weight: the chain's last
    link to them is written out."""
    A, W2, A1, A2, Y, W1 = residuals
    dA2 = dC[:, None] * (A2 - Y)
    Delta2 = rules.bp1_batch(dA2, A2 * (1 - A2))
    Delta1 = rules.bp2_batch(W2, Delta2, A1 * (1 - A1))
    dA = rules.bp2_batch(W1, Delta1, jnp.ones_like(A))
    dW1, dW2 = rules.bp4_batch(A, Delta1), rules.bp4_batch(A1, Delta2)
    return dA, dW1, rules.bp3_batch(Delta1), dW2, rules.bp3_batch(Delta2), -dA2


def column(a: Any, w1: Any, b1: Any, w2: Any, b2: Any, y: Any) -> Any:
    """The same network for one example, every vector a column: the cost, a number."""
    a1 = jax.nn.sigmoid(jnp.einsum("oi,ij->oj", w1, a) + b1)
    return jnp.sum(jnp.square(jax.nn.sigmoid(jnp.einsum("oi,ij->oj", w2, a1) + b2) - y)) / 2


def column_forward(a: Any, w1: Any, b1: Any, w2: Any, b2: Any, y: Any) -> tuple[Any, Any]:
    """The same, and what BP1 to BP4 need."""
    a1 = jax.nn.sigmoid(w1 @ a + b1)
    a2 = jax.nn.sigmoid(w2 @ a1 + b2)
    return jnp.sum(jnp.square(a2 - y)) / 2, (a, w2, a1, a2, y, w1)


def column_backward(residuals: Any, dC: Any) -> Arrays:
    """BP1 to BP4 for one example, as in Nielsen's second chapter."""
    a, w2, a1, a2, y, w1 = residuals
    da2 = dC * (a2 - y)
    delta2 = rules.bp1_example(da2, a2 * (1 - a2))
    delta1 = rules.bp2_example(w2, delta2, a1 * (1 - a1))
    da = rules.bp2_example(w1, delta1, jnp.ones_like(a))
    dw1, dw2 = rules.bp4_example(a, delta1), rules.bp4_example(a1, delta2)
    return da, dw1, rules.bp3_example(delta1), dw2, rules.bp3_example(delta2), -da2


ROWS, TOKENS = (5, 7), (3, 2, 4)


def of_one(op: str, reference: Callable[..., Any], **options: Any) -> list[Entry]:
    """A rule of one array: rows, and tokens."""
    return [
        Entry(op, "rows", normal(ROWS), reference, options),
        Entry(op, "tokens", normal(TOKENS), reference, options),
    ]


def of_two(op: str, reference: Callable[..., Any], **options: Any) -> list[Entry]:
    """A regression's loss."""

    def total(A: Any, Y: Any, **options: Any) -> Any:
        return per_example(reference(A, Y, **options))

    return [
        Entry(op, "rows", beside(ROWS, numbers), total, options),
        Entry(op, "tokens", beside(TOKENS, numbers), total, options),
    ]


LIBRARY: list[Entry] = [
    Entry("linear", "rows", normal((5, 7), (7, 3), (3,)), linear),
    Entry("linear", "tokens", normal((3, 4, 2), (2, 5), (5,)), linear),
    Entry("linear", "no bias", normal((5, 7), (7, 3)), linear),
    *of_one("identity", lambda X: X * 1),
    *of_one("sigmoid", jax.nn.sigmoid),
    *of_one("tanh", jnp.tanh),
    *of_one("softplus", jax.nn.softplus),
    *of_one("relu", jax.nn.relu),
    *of_one("leaky_relu", jax.nn.leaky_relu),
    *of_one("elu", jax.nn.elu),
    Entry("elu", "rows", normal(ROWS), jax.nn.elu, {"alpha": 0.5}),
    *of_one("selu", jax.nn.selu),
    *of_one("silu", jax.nn.silu),
    *of_one("mish", jax.nn.mish),
    *of_one("gelu", partial(jax.nn.gelu, approximate=False)),
    Entry("gelu", "rows", normal(ROWS), jax.nn.gelu, {"approximate": True}),
    *of_one("softmax", jax.nn.softmax),
    *of_one("log_softmax", jax.nn.log_softmax),
    *of_one("logsumexp", partial(jax.nn.logsumexp, axis=-1)),
    *of_two("squared_error", optax.losses.squared_error),
    *of_two("l2_loss", optax.losses.l2_loss),
    *of_two("absolute_error", lambda A, Y: jnp.abs(A - Y)),
    *of_two("huber_loss", optax.losses.huber_loss),
    Entry("huber_loss", "integers", beside(ROWS, integers), huber_loss),
    Entry("sigmoid_cross_entropy", "rows", beside(ROWS, probabilities), sigmoid_cross_entropy),
    Entry("sigmoid_cross_entropy", "tokens of integers", beside(TOKENS, integers), sigmoid_cross_entropy),
    Entry("softmax_cross_entropy", "labels", beside(ROWS, labels), softmax_cross_entropy),
    Entry("softmax_cross_entropy", "distributions", beside(ROWS, distributions), softmax_cross_entropy),
    Entry("softmax_cross_entropy", "tokens", beside(TOKENS, labels), softmax_cross_entropy, {"label_smoothing": 0.1}),
    Entry("binary_cross_entropy", "rows", inside(ROWS, probabilities), binary_cross_entropy),
    Entry("binary_cross_entropy", "tokens of integers", inside(TOKENS, integers), binary_cross_entropy),
    Entry(
        "bp_batch",
        "rows",
        normal((5, 4), (4, 3), (3,), (3, 2), (2,), (5, 2)),
        two_layers,
        pair=(two_layers_forward, two_layers_backward),
    ),
    Entry(
        "bp_example",
        "column",
        normal((4, 1), (3, 4), (3, 1), (2, 3), (2, 1), (2, 1)),
        column,
        pair=(column_forward, column_backward),
    ),
]
