"""einsum_backward against jax.vjp of jnp.einsum over many subscripts, and what it refuses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules
from handgrad.rules import einsum_backward, einsum_forward

SIZES = {"i": 2, "j": 3, "k": 4, "l": 2, "m": 1}
SUBSCRIPTS = [
    # Products, sums and rows.
    "ij,jk->ik",
    "ij,jk",
    "ij,kj->ik",
    "ij,jk->ki",
    "ij,jk->",
    "ij,ij->",
    "ij,ij->ij",
    "ij,ji->ij",
    "i,i->",
    "i,j->ij",
    "i,j->ji",
    "i,j->",
    "i,j->i",
    "ij,k->jk",
    "ij,j",
    "ji,j->i",
    "ijk,kl->ijl",
    "ijk,jkl->il",
    "ijk,kji",
    "ijk,jil->kl",
    # Diagonals.
    "ii,i->i",
    "ii,i->",
    "ii,jj->ij",
    "ii,jj->",
    "ii,jk->k",
    "iii,i->i",
    "iji,jk->ik",
    "iji,ij->",
    "ijij,jk->ik",
    "iij,jkk->ki",
    # Numbers, and axes of size 1.
    *(",->", "i,->i", "ij,->j", ",ij->ji", ",ii->i", "im,mk->ik", "mm,i->im", "ijk,m->k", "kji,ji->k", "i,jj->j"),
]
# With "...": and the shapes.
BROADCAST = [
    ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4)),
    ("...ij,...jk->...ik", (2, 3), (5, 3, 4)),
    ("...ij,jk->...ik", (5, 2, 2, 3), (3, 4)),
    ("...ij,...jk", (5, 1, 2, 3), (3, 3, 4)),
    ("...i,...i->...", (1, 4, 3), (5, 1, 3)),
    ("...,...->...", (1, 3), (2, 1)),
    ("...,...", (), (3,)),
    ("i...j,...jk->k...i", (2, 1, 3), (5, 3, 4)),
    ("ii...,...i->i...", (2, 2, 1), (3, 2)),
    ("b...i,io->b...o", (3, 2, 2, 4), (4, 3)),
    ("...i,...j->...", (1, 2), (1, 3)),
]


def shapes(subscripts):
    return [tuple(SIZES[letter] for letter in term.strip()) for term in subscripts.split("->")[0].split(",")]


def both(subscripts, shapes, seed=0):
    """(Y, (dA, dB)) by hand and by jax.vjp of jnp.einsum."""
    rng = np.random.default_rng(seed)
    A, B = (jnp.asarray(rng.standard_normal(shape)) for shape in shapes)
    expected, pull_back = jax.vjp(lambda A, B: jnp.einsum(subscripts, A, B), A, B)
    dY = jnp.asarray(rng.standard_normal(expected.shape))
    Y, residuals = einsum_forward(A, B, subscripts=subscripts)
    return (Y, einsum_backward(residuals, dY, subscripts=subscripts)), (expected, pull_back(dY))


def test_forty_subscripts():
    found, expected = jax.jit(lambda: tuple(zip(*(both(s, shapes(s)) for s in SUBSCRIPTS), strict=True)))()
    assert len(SUBSCRIPTS) == 40
    assert_same(found, expected)


def test_broadcasting():
    found, expected = jax.jit(lambda: tuple(zip(*(both(s, shapes) for s, *shapes in BROADCAST), strict=True)))()
    assert_same(found, expected)


def test_any_subscripts():
    """Letters at random, and an output that takes some of them in any order; spaces mean nothing. One program."""
    rng = np.random.default_rng(0)
    drawn = [" ij , jk -> ik "]
    for _ in range(25):
        a, b = ("".join(rng.choice(list("ijkm"), rng.integers(0, 4))) for _ in range(2))
        letters = rng.permutation(sorted(set(a + b)))[: rng.integers(0, 5)]
        drawn.append(f"{a},{b}->{''.join(letters)}")
    found, expected = jax.jit(lambda: tuple(zip(*(both(s, shapes(s)) for s in drawn), strict=True)))()
    assert_same(found, expected)


A, B = np.ones((2, 3)), np.ones((3, 4))


@pytest.mark.parametrize(
    ("subscripts", "message"),
    [
        ("ij->ij", "subscripts must name two operands, as 'ij,jk->ik', got 'ij->ij'"),
        ("ij,jk,kl->il", "subscripts must name two operands, as 'ij,jk->ik', got 'ij,jk,kl->il'"),
        ("ij,jk->iz", "subscripts must give the output letters of the operands, …"),
        ("ij,jk->ii", "subscripts must give the output each letter once, got 'ij,jk->ii'"),
        ("...ij,jk->ik", "subscripts must give the output letters of the operands, and '...' where they have it…"),
        ("i1,jk->ik", "subscripts must be of letters and at most one '...' for each operand, got …"),
        ("...i...,jk->...", "subscripts must be of letters and at most one '...' for each operand, got …"),
        ("ij,jk->i->k", "subscripts must be of letters and at most one '...' for each operand, got …"),
        ("ij..,jk->ik", "subscripts must be of letters and at most one '...' for each operand, got …"),
        ("ij,ik->jk", "B must have 2 along axis 0 for 'ij,ik->jk', got float64 (3, 4)"),
        ("ii,jk->jk", "A must have 2 along axis 1 for 'ii,jk->jk', got float64 (2, 3)"),
        ("ijk,jk->i", "A must have 3 axes for 'ijk', got float64 (2, 3)"),
        ("i,jk->ik", "A must have 1 axes for 'i', got float64 (2, 3)"),
        ("...ijk,jk->...i", "A must have at least 3 axes for '...ijk', got float64 (2, 3)"),
        ("...j,...k->...", "B must have 2 along axis 0 for '...j,...k->...', got float64 (3, 4)"),
        (("ij", "jk"), "subscripts must be a string, as 'ij,jk->ik', got tuple"),
        (None, "subscripts must be a string, as 'ij,jk->ik', got NoneType"),
    ],
)
def test_subscripts_that_do_not_fit(subscripts, message):
    refuses(rules.einsum, message, A, B, subscripts=subscripts)
    with pytest.raises(hg.InputError, match="^" + re.escape(f"einsum_forward: {message.removesuffix('…')}")):
        jax.eval_shape(lambda A, B: einsum_forward(A, B, subscripts=subscripts), A, B)


def test_operands():
    product = {"subscripts": "ij,jk->ik"}
    refuses(rules.einsum, "B must have a floating-point dtype, got int64 (3, 4)", A, B.astype(int), **product)
    refuses(rules.einsum, "B must be an array, got list", A, [1.0], **product)


def test_letters_of_a_contraction():
    """The example stays in front; a parameter's letters are X's or Y's, each once."""
    for subscripts in ("bi,io->ob", "bi,bo->bi", "bb,bi->bi", ",i->i", "bi,ib->bi", "bi,io->o"):
        ones = [np.ones((4,) * len(term)) for term in subscripts.split("->")[0].split(",")]
        sentence = "subscripts must begin X and Y with the batch letter, which W does not have, got …"
        refuses(rules.contraction, sentence, *ones, subscripts=subscripts)
    for subscripts in ("bi,ii->bi", "bi,ik->bi", "b...,...->b..."):
        W = np.ones(4 if "..." in subscripts else (4, 4))
        sentence = f"subscripts must give W letters of X or Y, each once, got {subscripts!r}"
        refuses(rules.contraction, sentence, np.ones((4, 4)), W, subscripts=subscripts)
