"""The one table: rules × inputs.

A row names the rule, draws its arguments and gives an independent reference of the forward pass in plain jax.numpy.
Every contract in tests/rules/test_contracts.py runs on every row; tests/test_completeness.py sees to it that no rule
has none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Case:
    """One row.

    Attributes:
      op: the rule, `<op>_forward` and `<op>_backward` of handgrad.rules.
      name: what is special about these inputs.
      draw: random generator -> arguments, NumPy float64 or integers.
      reference: the forward pass again, in plain jax.numpy: (*arguments, **options) -> output.
      options: the rule's keyword-only options.
    """

    op: str
    name: str
    draw: Draw
    reference: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


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


# References. None of them calls anything of handgrad.


def linear(X, W, b=None):
    Y = jnp.einsum("...i,io->...o", X, W)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def sigmoid(X):
    return jnp.exp(-jnp.logaddexp(-X, 0))


def relu(X):
    return jnp.where(X > 0, X, 0)


def leaky_relu(X, negative_slope=0.01):
    return jnp.where(X >= 0, X, negative_slope * X)


def elu(X, alpha=1.0):
    return jnp.where(X > 0, X, alpha * jnp.expm1(jnp.where(X > 0, 0, X)))


def selu(X):
    return 1.0507009873554804934193349852946 * elu(X, 1.6732632423543772848170429916717)


def softplus(X):
    return jnp.logaddexp(X, 0)


def gelu(X, approximate=False):
    if approximate:
        return X / 2 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi).astype(X.dtype) * (X + 0.044715 * X**3)))
    return X / 2 * (1 + jax.scipy.special.erf(X / 2**0.5))


def mish(X):
    # (1 + eˣ)² − 1 over (1 + eˣ)² + 1: tanh ∘ softplus without either.
    n = jnp.exp(X) * (jnp.exp(X) + 2)
    return X * n / (n + 2)


def softmax(X):
    return jnp.exp(log_softmax(X))


def log_softmax(X):
    shifted = X - jax.lax.stop_gradient(jnp.max(X, -1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), -1, keepdims=True))


def logsumexp(X):
    return jax.scipy.special.logsumexp(X, axis=-1)


def per_example(C):
    return jnp.sum(C.reshape(C.shape[0], -1), axis=1)


def squared_error(A, Y):
    return per_example(jnp.square(A - Y))


def l2_loss(A, Y):
    return per_example(jnp.square(A - Y) / 2)


def absolute_error(A, Y):
    return per_example((A - Y) * jnp.sign(A - Y))


def huber_loss(A, Y, delta=1.0):
    size = jnp.abs(A - Y)
    return per_example(jnp.where(size <= delta, jnp.square(A - Y) / 2, delta * (size - delta / 2)))


def sigmoid_cross_entropy(Z, Y):
    return per_example(jnp.logaddexp(Z, 0) - Z * Y)


def softmax_cross_entropy(Z, Y, label_smoothing=0.0):
    if jnp.issubdtype(Y.dtype, jnp.integer):
        Y = jnp.eye(Z.shape[-1], dtype=Z.dtype)[Y]
    return per_example(-((1 - label_smoothing) * Y + label_smoothing / Z.shape[-1]) * log_softmax(Z))


def binary_cross_entropy(A, Y):
    return per_example(-(Y * jnp.log(A) + (1 - Y) * jnp.log(1 - A)))


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


def regression(op: str, reference: Callable[..., Any], **options: Any) -> list[Case]:
    suffix = "".join(f"-{value}" for value in options.values())
    return [
        Case(op, f"rows{suffix}", with_target((5, 7), numbers), reference, options),
        Case(op, f"tokens{suffix}", with_target((3, 2, 4), numbers), reference, options),
        Case(op, f"scalars{suffix}", with_target((4,), numbers), reference, options),
        Case(op, f"integers{suffix}", with_target((4, 3), integers), reference, options),
        Case(op, f"met{suffix}", fixed([[1.0, 2.0]], [[1.0, 3.0]]), reference, options),
    ]


CASES: list[Case] = [
    Case("leaky_relu", "underflow", fixed(np.array([[-1e-37, -1e-6, 1e-37, 1.0]])), leaky_relu),
    Case("linear", "rows", normal((5, 7), (7, 3), (3,)), linear),
    Case("linear", "no-bias", normal((5, 7), (7, 3)), linear),
    Case("linear", "tokens", normal((3, 4, 2), (2, 5), (5,)), linear),
    Case("linear", "images", normal((2, 3, 2, 4), (4, 3), (3,)), linear),
    Case("linear", "single", normal((1, 1), (1, 1), (1,)), linear),
    Case("linear", "question", fixed([[5.7]], [[-23.1]]), linear),
    Case("linear", "empty", normal((0, 3), (3, 2), (2,)), linear),
    *elementwise("identity", lambda X: X),
    *elementwise("sigmoid", sigmoid),
    *elementwise("tanh", jnp.tanh),
    *elementwise("softplus", softplus),
    *elementwise("relu", relu),
    *elementwise("leaky_relu", leaky_relu),
    *elementwise("leaky_relu", leaky_relu, negative_slope=0.3),
    *elementwise("elu", elu),
    *elementwise("elu", elu, alpha=0.5),
    *elementwise("selu", selu),
    *elementwise("silu", lambda X: X * sigmoid(X)),
    *elementwise("mish", mish, extreme=False),
    *elementwise("gelu", gelu),
    *elementwise("gelu", gelu, approximate=True),
    *along_rows("softmax", softmax),
    *along_rows("log_softmax", log_softmax),
    *along_rows("logsumexp", logsumexp),
    *regression("squared_error", squared_error),
    *regression("l2_loss", l2_loss),
    *regression("absolute_error", absolute_error),
    *regression("huber_loss", huber_loss),
    *regression("huber_loss", huber_loss, delta=0.25),
    Case("sigmoid_cross_entropy", "rows", with_target((5, 7), probabilities, 2.0), sigmoid_cross_entropy),
    Case("sigmoid_cross_entropy", "tokens", with_target((3, 2, 4), probabilities), sigmoid_cross_entropy),
    Case("sigmoid_cross_entropy", "integers", with_target((5, 7), integers, 2.0), sigmoid_cross_entropy),
    Case("sigmoid_cross_entropy", "1e4", fixed([[1e4, 1e4, -1e4]], [[1.0, 0.5, 0.0]]), sigmoid_cross_entropy),
    Case("softmax_cross_entropy", "labels", with_target((5, 7), labels, 2.0), softmax_cross_entropy),
    Case("softmax_cross_entropy", "tokens", with_target((3, 2, 4), labels), softmax_cross_entropy),
    Case("softmax_cross_entropy", "distributions", with_target((5, 7), distributions), softmax_cross_entropy),
    Case("softmax_cross_entropy", "unnormalised", with_target((5, 7), probabilities), softmax_cross_entropy),
    Case(
        "softmax_cross_entropy",
        "labels-smoothed",
        with_target((5, 7), labels),
        softmax_cross_entropy,
        {"label_smoothing": 0.1},
    ),
    Case(
        "softmax_cross_entropy",
        "distributions-smoothed",
        with_target((3, 2, 4), distributions),
        softmax_cross_entropy,
        {"label_smoothing": 0.3},
    ),
    Case("softmax_cross_entropy", "1e4", fixed([[1e4, -1e4, 0.0], [1e4, 0.0, 0.0]], [0, 2]), softmax_cross_entropy),
    Case(
        "binary_cross_entropy",
        "rows",
        lambda rng: (rng.uniform(0.01, 0.99, (5, 7)), rng.uniform(0, 1, (5, 7))),
        binary_cross_entropy,
    ),
    Case(
        "binary_cross_entropy",
        "integers",
        lambda rng: (rng.uniform(0.01, 0.99, (3, 2, 4)), rng.integers(0, 2, (3, 2, 4))),
        binary_cross_entropy,
    ),
    Case("binary_cross_entropy", "tiny", fixed([[1e-30, 1e-3, 0.5]], [[0.0, 1.0, 0.5]]), binary_cross_entropy),
]
