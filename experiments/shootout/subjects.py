"""What the checkers are put to: every rule of the library on several inputs, and a few rules that aren't ours."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from handgrad.cases import CASES, Case
from handgrad.cases.case import Arrays, Draw, Rng, Shape, normal, with_target
from handgrad.crosscheck.subject.arguments import is_inexact
from handgrad.crosscheck.subject.forms import from_rule
from handgrad.crosscheck.subject.problem import Problem
from handgrad.rules import Rule

SQUARE, MANY, ONE = (6, 6), (32, 5), (1, 6)  # a square; more outputs than a Jacobian is taken of; a single example
# Rules of one array, and losses: put to the checkers on more inputs than the table has.
OF_ONE_ARRAY = (
    *("identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "mish"),
    *("softmax", "log_softmax", "logsumexp"),
)
LOSSES: dict[str, Callable[[Rng, Shape], Any]] = {
    **dict.fromkeys(
        ("squared_error", "l2_loss", "absolute_error", "huber_loss"), lambda rng, s: rng.standard_normal(s)
    ),
    "sigmoid_cross_entropy": lambda rng, shape: rng.uniform(0.05, 0.95, shape),
    "binary_cross_entropy": lambda rng, shape: rng.uniform(0.05, 0.95, shape),
    "softmax_cross_entropy": lambda rng, shape: (
        rng.dirichlet(np.ones(6), 6) if shape == SQUARE else rng.integers(0, shape[-1], shape[:-1])
    ),
}


@functools.cache
def subjects() -> list[Case]:
    """The rows of the table that `handgrad check` runs, the basic rules on more inputs, and the strangers."""
    rows = [case for case in CASES if not case.tests_only and not case.estimator]  # which differences would refuse
    first = {(case.op, *case.options.items()): case for case in reversed(rows)}
    more = [
        replace(case, name=words, draw=draw)
        for case in first.values()
        for words, draw in _more_inputs(case.op).items()
        if words != "square" or "ignore_index" not in case.options  # whose targets are labels
    ]
    return [*rows, *more, *STRANGERS]


def subject(name: str) -> Case:
    """One of them by its name."""
    return next(case for case in subjects() if str(case) == name)


def one_each() -> list[str]:
    """One name for each rule and its options."""
    return list({(case.op, *case.options.items()): str(case) for case in reversed(subjects())}.values())[::-1]


def _more_inputs(op: str) -> dict[str, Draw]:
    if op == "linear":
        return {
            "square": normal((6, 6), (6, 6), (6,)),
            "many": normal((32, 5), (5, 4), (4,)),
            "one": normal((1, 6), (6, 6), (6,)),
        }
    shapes = {"square": SQUARE, "many": MANY, "one": ONE}
    if op == "binary_cross_entropy":
        return {words: _probabilities(shape) for words, shape in shapes.items()}
    if op in LOSSES:
        return {words: with_target(shape, LOSSES[op]) for words, shape in shapes.items()}
    return {words: normal(shape) for words, shape in shapes.items()} if op in OF_ONE_ARRAY else {}


def _probabilities(shape: Shape) -> Draw:
    return lambda rng: (rng.uniform(0.05, 0.95, shape), rng.uniform(0.05, 0.95, shape))


def problem_of(case: Case, args: Arrays) -> Problem:
    """A subject's gradient at these arguments, as the checkers take it."""
    rule = case.settled
    return from_rule(str(case), rule.forward, rule.backward, args, case.expected)


def arguments(case: Case, dtype: Any, seed: int, scale: float = 1.0) -> Arrays:
    """The row's arguments in a dtype; complex ones in the complex type of that precision.

    Args:
      scale: a factor on the arguments that may have any size: all but targets of a classification, and probabilities,
        of which those at a small scale are small.
    """
    found = []
    for i, argument in enumerate(case.arguments(seed)):
        if isinstance(argument, np.ndarray) and is_inexact(argument):
            complex_dtype = np.complex64 if np.dtype(dtype).itemsize <= 4 else np.complex128
            argument = argument * _scale(case.op, i, scale)
            argument = argument.astype(complex_dtype if np.iscomplexobj(argument) else dtype)
        found.append(argument)
    return tuple(found)


def _scale(op: str, position: int, scale: float) -> float:
    if op == "binary_cross_entropy":
        return min(scale, 1.0) if position == 0 else 1.0
    if op.endswith("cross_entropy") and position > 0:
        return 1.0
    return scale


# Strangers: rules as users write them, with autodiff of plain jax.numpy for a reference.


def _product(X: Array, W: Array) -> Array:
    return X @ W


def complex_linear_forward(X: Array, W: Array) -> tuple[Array, Arrays]:
    """X W of complex numbers."""
    return X @ W, (X, W)


def _complex_linear_backward(residuals: Arrays, dY: Array) -> Arrays:
    X, W = residuals
    return dY @ W.T, X.T @ dY


def _modulus(X: Array) -> Array:
    return jnp.real(X) ** 2 + jnp.imag(X) ** 2


def modulus_forward(X: Array) -> tuple[Array, Array]:
    """|X|²."""
    return _modulus(X), X


def _modulus_backward(residuals: Array, dY: Array) -> Arrays:
    return (2 * dY * jnp.conj(residuals),)


def _layer_norm(X: Array, g: Array, b: Array) -> Array:
    return (X - X.mean(-1, keepdims=True)) / jnp.sqrt(X.var(-1, keepdims=True) + 1e-5) * g + b


def strangers_layer_norm_forward(X: Array, g: Array, b: Array) -> tuple[Array, Arrays]:
    """Rows of mean 0 and variance 1, times g, plus b."""
    r = 1 / jnp.sqrt(X.var(-1, keepdims=True) + 1e-5)
    N = (X - X.mean(-1, keepdims=True)) * r
    return N * g + b, (N, r, g)


def _layer_norm_backward(residuals: Arrays, dY: Array) -> Arrays:
    N, r, g = residuals
    dN = dY * g
    dX = r * (dN - dN.mean(-1, keepdims=True) - N * (dN * N).mean(-1, keepdims=True))
    return dX, (dY * N).sum(0), dY.sum(0)


def _attention(Q: Array, K: Array, V: Array) -> Array:
    return jax.nn.softmax(Q @ K.T / Q.shape[-1] ** 0.5, axis=-1) @ V


def strangers_attention_forward(Q: Array, K: Array, V: Array) -> tuple[Array, Arrays]:
    """softmax(Q Kᵀ / √d) V."""
    P = jax.nn.softmax(Q @ K.T / Q.shape[-1] ** 0.5, axis=-1)
    return P @ V, (Q, K, V, P)


def _attention_backward(residuals: Arrays, dY: Array) -> Arrays:
    Q, K, V, P = residuals
    dP = dY @ V.T
    dS = P * (dP - (dP * P).sum(-1, keepdims=True)) / Q.shape[-1] ** 0.5
    return dS @ K, dS.T @ Q, P.T @ dY


def _complex_normal(*shapes: Shape) -> Draw:
    return lambda rng: tuple(rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in shapes)


_COMPLEX_LINEAR = Rule(complex_linear_forward, _complex_linear_backward)
STRANGERS = [
    Case(_COMPLEX_LINEAR, "square", _complex_normal((4, 4), (4, 4)), _product),
    Case(_COMPLEX_LINEAR, "rows", _complex_normal((5, 3), (3, 4)), _product),
    Case(Rule(modulus_forward, _modulus_backward), "rows", _complex_normal((5, 7)), _modulus),
    Case(Rule(strangers_layer_norm_forward, _layer_norm_backward), "rows", normal((5, 7), (7,), (7,)), _layer_norm),
    Case(Rule(strangers_attention_forward, _attention_backward), "square", normal((6, 6), (6, 6), (6, 6)), _attention),
]
