"""Contraction: the factors that it generalizes, and what it refuses."""

import numpy as np
import pytest
from factors.table import ROWS, jit
from helpers import assert_same

import handgrad as hg
from handgrad.factors import Contraction, Hadamard, Outer


def test_it_generalizes_outer_and_hadamard():
    pairs = []
    for name, subscripts, other in (("tokens", "bti,bto->io", Outer), ("hadamard", "bti,bti->i", Hadamard)):
        sides = ROWS[f"contraction-{name}"].sides(0)
        pairs.append((Contraction(*sides, subscripts), other(*sides)))

    def folds(f, other):
        return f.shape, f.sum(), f.sq_norms(), f.second_moment(), f.per_example(), f.inner(other)

    assert_same(*jit(lambda pairs: ([folds(f, g) for f, g in pairs], [folds(g, f) for f, g in pairs]))(pairs))


@pytest.mark.parametrize(
    ("subscripts", "message"),
    [
        ("bti,to->io", "subscripts must begin with one batch letter on both sides, and not have it in the parameter"),
        ("bti,bto->bo", "subscripts must begin with one batch letter on both sides, and not have it in the parameter"),
        ("bti,bto->iz", "subscripts must give the parameter letters of A or Delta, each once"),
        ("bti,bto->ii", "subscripts must give the parameter letters of A or Delta, each once"),
        ("bi,bto->io", "A must have 2 axes, 'bi', got float64 (4, 3, 2)"),
        ("bti,bio->io", "Delta must have 2 along 'i' of 'bio', got float64 (4, 3, 3)"),
        ("bti,bto", "subscripts must be like 'bti,bto->io'"),
        ("b...i,b...o->io", "subscripts must be like 'bti,bto->io'"),
    ],
)
def test_refusals(subscripts, message):
    with pytest.raises(hg.InputError) as raised:
        Contraction(np.ones((4, 3, 2)), np.ones((4, 3, 3)), subscripts).sum()
    assert str(raised.value).startswith(f"Contraction: {message}")
