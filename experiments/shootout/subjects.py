"""What the checkers are put to: every rule of the library on several inputs, and a few rules that aren't ours."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.cli.library import LIBRARY, Entry
from handgrad.cli.library.basics import BASICS
from handgrad.cli.library.entry import beside, distributions, inside, labels, normal, numbers, probabilities
from handgrad.crosscheck.arguments import is_inexact

Arrays = tuple[Any, ...]
Draw = Callable[[np.random.Generator], Arrays]

SQUARE, MANY, ONE = (6, 6), (32, 5), (1, 6)  # a square; more outputs than a Jacobian is taken of; a single example
LOSSES = ("squared_error", "l2_loss", "absolute_error", "huber_loss")


def subjects() -> list[Entry]:
    """The library's rows, its basic rules on more inputs, and the strangers."""
    first = {(entry.op, *entry.options.items()): entry for entry in reversed(BASICS)}
    more = [
        replace(entry, inputs=words, draw=draw)
        for entry in first.values()
        for words, draw in _more_inputs(entry.op).items()
    ]
    return [*LIBRARY, *more, *STRANGERS]


def subject(name: str) -> Entry:
    """One of them by its name."""
    return next(entry for entry in subjects() if entry.name == name)


def one_each() -> list[str]:
    """One name for each rule and its options."""
    return list({(entry.op, *entry.options.items()): entry.name for entry in reversed(subjects())}.values())[::-1]


def _more_inputs(op: str) -> dict[str, Draw]:
    if op == "linear":
        return {
            "square": normal((6, 6), (6, 6), (6,)),
            "many": normal((32, 5), (5, 4), (4,)),
            "one": normal((1, 6), (6, 6), (6,)),
        }
    drawn: dict[str, Callable[[tuple[int, ...]], Draw]] = {
        **dict.fromkeys(LOSSES, lambda shape: beside(shape, numbers)),
        "sigmoid_cross_entropy": lambda shape: beside(shape, probabilities),
        "softmax_cross_entropy": lambda shape: beside(shape, distributions if shape == SQUARE else labels),
        "binary_cross_entropy": lambda shape: inside(shape, probabilities),
    }
    of_shape = drawn.get(op, lambda shape: normal(shape))
    return {"square": of_shape(SQUARE), "many": of_shape(MANY), "one": of_shape(ONE)}


def arguments(entry: Entry, dtype: Any, seed: int, scale: float = 1.0) -> Arrays:
    """The row's arguments in a dtype; complex ones in the complex type of that precision.

    Args:
      scale: what the arguments are multiplied with that may have any size: all but targets of a classification, and
        probabilities, of which those at a small scale are small.
    """
    rng = np.random.default_rng([seed, *entry.name.encode()])
    found = []
    for i, argument in enumerate(entry.draw(rng)):
        array = np.asarray(argument)
        if is_inexact(array):
            complex_dtype = np.complex64 if np.dtype(dtype).itemsize <= 4 else np.complex128
            array = array * _scale(entry.op, i, scale)
            array = array.astype(complex_dtype if np.iscomplexobj(array) else dtype)
        found.append(array)
    return tuple(found)


def _scale(op: str, position: int, scale: float) -> float:
    if op == "binary_cross_entropy":
        return min(scale, 1.0) if position == 0 else 1.0
    if op.endswith("cross_entropy") and position > 0:
        return 1.0
    return scale


# Strangers: rules as users write them, with autodiff of plain jax.numpy for a reference.


def _complex_linear(X: Any, W: Any) -> Any:
    return X @ W


def _complex_linear_backward(residuals: Any, dY: Any) -> Arrays:
    X, W = residuals
    return dY @ W.T, X.T @ dY


def _modulus(X: Any) -> Any:
    return jnp.real(X) ** 2 + jnp.imag(X) ** 2


def _modulus_backward(residuals: Any, dY: Any) -> Arrays:
    return (2 * dY * jnp.conj(residuals),)


def _layer_norm(X: Any, g: Any, b: Any) -> Any:
    return (X - X.mean(-1, keepdims=True)) / jnp.sqrt(X.var(-1, keepdims=True) + 1e-5) * g + b


def _layer_norm_forward(X: Any, g: Any, b: Any) -> tuple[Any, Any]:
    r = 1 / jnp.sqrt(X.var(-1, keepdims=True) + 1e-5)
    N = (X - X.mean(-1, keepdims=True)) * r
    return N * g + b, (N, r, g)


def _layer_norm_backward(residuals: Any, dY: Any) -> Arrays:
    N, r, g = residuals
    dN = dY * g
    dX = r * (dN - dN.mean(-1, keepdims=True) - N * (dN * N).mean(-1, keepdims=True))
    return dX, (dY * N).sum(0), dY.sum(0)


def _attention(Q: Any, K: Any, V: Any) -> Any:
    return jax.nn.softmax(Q @ K.T / Q.shape[-1] ** 0.5, axis=-1) @ V


def _attention_forward(Q: Any, K: Any, V: Any) -> tuple[Any, Any]:
    P = jax.nn.softmax(Q @ K.T / Q.shape[-1] ** 0.5, axis=-1)
    return P @ V, (Q, K, V, P)


def _attention_backward(residuals: Any, dY: Any) -> Arrays:
    Q, K, V, P = residuals
    dP = dY @ V.T
    dS = P * (dP - (dP * P).sum(-1, keepdims=True)) / Q.shape[-1] ** 0.5
    return dS @ K, dS.T @ Q, P.T @ dY


def _complex_normal(*shapes: tuple[int, ...]) -> Draw:
    return lambda rng: tuple(rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in shapes)


STRANGERS = [
    Entry(
        "complex linear",
        "square",
        _complex_normal((4, 4), (4, 4)),
        _complex_linear,
        pair=(lambda X, W: (X @ W, (X, W)), _complex_linear_backward),
    ),
    Entry(
        "complex linear",
        "rows",
        _complex_normal((5, 3), (3, 4)),
        _complex_linear,
        pair=(lambda X, W: (X @ W, (X, W)), _complex_linear_backward),
    ),
    Entry(
        "modulus",
        "rows",
        _complex_normal((5, 7)),
        _modulus,
        pair=(lambda X: (_modulus(X), X), _modulus_backward),
    ),
    Entry(
        "layer norm",
        "rows",
        normal((5, 7), (7,), (7,)),
        _layer_norm,
        pair=(_layer_norm_forward, _layer_norm_backward),
    ),
    Entry(
        "attention",
        "square",
        normal((6, 6), (6, 6), (6, 6)),
        _attention,
        pair=(_attention_forward, _attention_backward),
    ),
]
