"""Rows of rules/einsum.py."""

import jax.numpy as jnp

from cases.case import Case, normal
from handgrad import layers


def einsum(A, B, subscripts):
    return jnp.einsum(subscripts, A, B)


def row(op, name, subscripts, *shapes):
    return Case(op, name, normal(*shapes), einsum, {"subscripts": subscripts})


CASES = [
    row("einsum", "product", "ij,jk->ik", (3, 4), (4, 2)),
    row("einsum", "attention", "bthd,bshd->bhts", (2, 3, 2, 4), (2, 5, 2, 4)),
    row("einsum", "diagonals", "iji,kk->jk", (3, 2, 3), (4, 4)),
    row("einsum", "alone", "ijl,mjk", (2, 3, 2), (3, 3, 4)),
    row("einsum", "ellipsis", "...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)),
    row("einsum", "scalar", ",->", (), ()),
    row("contraction", "linear", "bti,io->bto", (3, 4, 2), (2, 5)),
    row("contraction", "heads", "bthi,hio->btoh", (3, 2, 2, 4), (2, 4, 3)),
    row("contraction", "ellipsis", "b...i,io->b...o", (3, 2, 2, 4), (4, 3)),
    row("contraction", "summed", "bkii,io->bo", (3, 2, 4, 4), (4, 2)),
]

LAYERS = {
    "einsum": lambda: layers.einsum("bti,io->bto", (2, 5)),
    "contraction": lambda: layers.einsum("bti,io->bto", (2, 5)),
}
