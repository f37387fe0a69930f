"""Linear maps: products, contractions, low-rank updates."""

import jax.numpy as jnp
from jaxtyping import Array

from handgrad import rules
from handgrad.cases.case import Case, Shape, edge, fixed, normal


def linear(X: Array, W: Array, b: Array | None = None) -> Array:
    """X W + b."""
    Y = jnp.einsum("...i,io->...o", X, W)
    return Y if b is None else Y + jnp.broadcast_to(b, Y.shape)


def lora_linear(X: Array, W: Array, A: Array, B: Array, b: Array | None = None, scale: float = 1.0) -> Array:
    """By the merged matrix, W + s A B."""
    return linear(X, W + scale * jnp.einsum("ir,ro->io", A, B), b)


def einsum(A: Array, B: Array, subscripts: str) -> Array:
    """jax.numpy's."""
    return jnp.einsum(subscripts, A, B)


def row(rule: rules.Rule, name: str, subscripts: str, *shapes: Shape, tests_only: bool = True) -> Case:
    """Normal numbers under these subscripts."""
    return Case(rule, name, normal(*shapes), einsum, {"subscripts": subscripts}, tests_only=tests_only)


CASES = [
    Case(rules.linear, "rows", normal((5, 7), (7, 3), (3,)), linear),
    Case(rules.linear, "no-bias", normal((5, 7), (7, 3)), linear),
    Case(rules.linear, "tokens", normal((3, 4, 2), (2, 5), (5,)), linear),
    edge(rules.linear, "images", normal((2, 3, 2, 4), (4, 3), (3,)), linear),
    edge(rules.linear, "single", normal((1, 1), (1, 1), (1,)), linear),
    edge(rules.linear, "question", fixed([[5.7]], [[-23.1]]), linear),
    edge(rules.linear, "empty", normal((0, 3), (3, 2), (2,)), linear),
    row(rules.einsum, "scores", "bthd,bshd->bhts", (2, 3, 2, 4), (2, 5, 2, 4), tests_only=False),
    row(rules.einsum, "diagonals", "iji,kk->jk", (3, 2, 3), (4, 4), tests_only=False),
    row(rules.einsum, "alone", "ijl,mjk", (2, 3, 2), (3, 3, 4)),
    row(rules.einsum, "ellipsis", "...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)),
    row(rules.einsum, "scalar", ",->", (), ()),
    row(rules.contraction, "heads", "bthi,hio->btoh", (3, 2, 2, 4), (2, 4, 3), tests_only=False),
    row(rules.contraction, "linear", "bti,io->bto", (3, 4, 2), (2, 5)),
    row(rules.contraction, "ellipsis", "b...i,io->b...o", (3, 2, 2, 4), (4, 3)),
    row(rules.contraction, "summed", "bkii,io->bo", (3, 2, 4, 4), (4, 2)),
    Case(rules.lora_linear, "rows", normal((5, 4), (4, 3), (4, 2), (2, 3), (3,)), lora_linear, {"scale": 0.5}),
    Case(rules.lora_linear, "no-bias", normal((5, 4), (4, 3), (4, 1), (1, 3)), lora_linear, {"scale": 2.0}),
    edge(
        rules.lora_linear,
        "tokens",
        normal((3, 4, 2), (2, 5), (2, 2), (2, 5), (5,)),
        lora_linear,
        {"scale": 1, "residuals": "recompute"},
    ),
]
