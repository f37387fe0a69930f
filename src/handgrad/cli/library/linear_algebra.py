"""Linear algebra and CTC. LAPACK has no bfloat16: the references compute in float32 and round, as the rules do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.cli.library.entry import Arrays, Draw, Entry, normal


def in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """JAX's function, in float32 at least; its outputs a plain tuple in the arguments' dtype."""

    def rounded(*arrays: Any, **options: Any) -> Any:
        dtype = jnp.result_type(*(a for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)))
        wide = [a.astype(jnp.promote_types(a.dtype, jnp.float32)) if a.dtype == dtype else a for a in arrays]
        outputs = function(*wide, **options)
        return jax.tree.map(lambda y: y.astype(dtype), tuple(outputs) if isinstance(outputs, tuple) else outputs)

    return rounded


def plus(diagonal: float, *shape: int, columns: int | None = None) -> Draw:
    """Normal numbers and a diagonal that keeps the matrix regular, with a right-hand side where it has columns."""

    def draw(rng: np.random.Generator) -> Arrays:
        A = rng.standard_normal(shape) + diagonal * np.eye(shape[-2], shape[-1])
        return (A,) if columns is None else (A, rng.standard_normal((*shape[:-1], columns)))

    return draw


def apart(*shape: int) -> Draw:
    """Singular values near 1, 3, 5, …: no two of them close, so that each has vectors of its own."""

    def draw(rng: np.random.Generator) -> Arrays:
        m, n = shape[-2:]
        return (0.2 * rng.standard_normal(shape) + np.eye(m, n) * (1 + 2 * np.arange(n)),)

    return draw


def triangular_solve(A: Any, B: Any, lower: bool = True, unit_diagonal: bool = False) -> Any:
    """jax.scipy's."""
    return jax.scipy.linalg.solve_triangular(A, B, lower=lower, unit_diagonal=unit_diagonal)


def positive_definite_solve(A: Any, B: Any) -> Any:
    """jax.scipy's, from the symmetric part."""
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor((A + jnp.swapaxes(A, -1, -2)) / 2), B)


def sequences(time: int, classes: int, labels: Any, frames: Any, lengths: Any) -> Draw:
    """Normal logits, and these labels and lengths."""
    return lambda rng: (
        rng.standard_normal((len(labels), time, classes)),
        np.array(labels),
        np.array(frames),
        np.array(lengths),
    )


def ctc_loss(Z: Any, labels: Any, input_lengths: Any, label_lengths: Any, blank: int = 0) -> Any:
    """By products of transition matrices between the labels and blanks, in probabilities instead of logarithms."""

    def of_one(logits: Any, labels: Any, frames: Any, length: Any) -> Any:
        P = jax.nn.softmax(logits)
        emitted = jnp.full(2 * labels.size + 1, blank).at[1::2].set(labels)
        state = jnp.arange(emitted.size)
        step = state[None, :] - state[:, None]
        differs = (emitted[None, :] != blank) & (emitted[None, :] != emitted[:, None])
        T = ((step == 0) | (step == 1) | ((step == 2) & differs)).astype(P.dtype)
        alpha = (state == 0).astype(P.dtype)
        for t in range(len(P)):
            alpha = jnp.where(t < frames, (alpha @ T) * P[t, emitted], alpha)
        return -jnp.log(jnp.sum(jnp.where((state == 2 * length) | (state == 2 * length - 1), alpha, 0)))

    return jax.vmap(of_one)(Z, labels, input_lengths, label_lengths)


LINEAR_ALGEBRA = [
    Entry("inverse", "matrices", plus(4, 2, 3, 3), in_float32(jnp.linalg.inv)),
    Entry("solve", "matrices", plus(4, 2, 3, 3, columns=2), in_float32(jnp.linalg.solve)),
    Entry("triangular_solve", "lower", plus(4, 2, 3, 3, columns=2), in_float32(triangular_solve)),
    Entry(
        "triangular_solve",
        "upper",
        plus(0, 2, 3, 3, columns=1),
        in_float32(triangular_solve),
        {
            "lower": False,
            "unit_diagonal": True,
        },
    ),
    Entry("positive_definite_solve", "matrices", plus(6, 2, 3, 3, columns=2), in_float32(positive_definite_solve)),
    Entry("trace", "matrices", normal((3, 4, 4)), in_float32(partial(jnp.trace, axis1=-2, axis2=-1))),
    Entry("determinant", "matrices", plus(2, 3, 4, 4), in_float32(jnp.linalg.det)),
    Entry("log_determinant", "matrices", plus(4, 3, 4, 4), in_float32(jnp.linalg.slogdet)),
    Entry("frobenius_norm", "matrices", normal((3, 2, 4)), in_float32(partial(jnp.linalg.norm, axis=(-2, -1)))),
    Entry("nuclear_norm", "matrices", apart(3, 2, 4), in_float32(partial(jnp.linalg.norm, ord="nuc", axis=(-2, -1)))),
    Entry("cholesky", "matrices", plus(6, 2, 3, 3), in_float32(jnp.linalg.cholesky)),
    Entry("qr", "tall", plus(3, 2, 4, 3), in_float32(jnp.linalg.qr)),
    Entry("qr", "wide", plus(3, 2, 2, 4), in_float32(jnp.linalg.qr)),
    Entry("symmetric_eigen", "matrices", apart(2, 3, 3), in_float32(jnp.linalg.eigh)),
    Entry("svd", "tall", apart(2, 4, 2), in_float32(partial(jnp.linalg.svd, full_matrices=False))),
    Entry("svd", "wide", apart(2, 2, 4), in_float32(partial(jnp.linalg.svd, full_matrices=False))),
    Entry(
        "matrix_exponential",
        "matrices",
        lambda rng: (rng.standard_normal((2, 3, 3)) / 3,),
        in_float32(jax.scipy.linalg.expm),
    ),
    Entry(
        "ctc_loss",
        "lengths",
        sequences(6, 4, [[1, 2, 3], [2, 2, 0], [3, 0, 0]], [6, 5, 3], [3, 2, 1]),
        in_float32(ctc_loss),
    ),
    Entry(
        "ctc_loss",
        "last blank",
        sequences(4, 3, [[0, 1], [1, 1]], [4, 4], [2, 2]),
        in_float32(ctc_loss),
        {"blank": 2, "residuals": "recompute"},
    ),
]
