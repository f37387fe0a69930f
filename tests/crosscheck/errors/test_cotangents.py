"""What a gradient makes of the cotangent."""

import numpy as np
import pytest
from crosscheck.errors.specimens import BATCH, by_hand, specimen

from handgrad.crosscheck.errors import diagnose


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (np.square, "dY² instead of dY"),
        (np.abs, "|dY| instead of dY"),
        (np.sign, "sign(dY) instead of dY"),
        (lambda dY: np.ones_like(dY) * 3, "3 × too large and ignores the cotangent: right for dY = 1"),
    ],
)
def test_cotangents(change, expected):
    s = specimen(np.random.default_rng(0))
    assert diagnose(s._replace(hand=[s.one([change(draw[0])]) for draw in s.dYs])) == expected


def test_without_asking_for_more_gradients():
    rng = np.random.default_rng(0)
    s = specimen(rng, one=None)
    assert diagnose(s._replace(hand=[s.hand[0]] * len(s.hand))) == "the same for every cotangent"
    assert diagnose(s._replace(hand=s.hand[1:] + s.hand[:1])) == ""


def test_a_missing_skip():
    s = specimen(np.random.default_rng(0), (BATCH, 3))
    passed = np.stack([draw[0] for draw in s.dYs])
    assert diagnose(by_hand(s, lambda H: H - passed)) == "the cotangent itself missing"
    assert diagnose(s._replace(hand=list(passed))) == "the cotangent itself"


@pytest.mark.parametrize(("shape", "draws"), [((4, 4), 3), ((4, 4), 1), ((400, 400), 2)])
def test_a_conjugate_is_called_one(shape, draws):
    rng = np.random.default_rng(0)
    s = specimen(rng, shape, draws=draws, dtype=np.complex128, batched=True)
    adjoint = [np.conj(s.one([np.conj(draw[0])])) for draw in s.dYs]
    assert diagnose(s._replace(hand=adjoint)) == "conjugate missing: Jᴴ dY instead of Jᵀ dY"
    unknown = diagnose(s._replace(hand=adjoint, one=None))
    assert unknown == (
        "each element multiplied by a different complex factor, of modulus 1 (a conjugate missing?)"
        if draws > 1
        else ""
    )
    real = s._replace(truth=[t.real for t in s.truth], value=s.value.real, dtype=np.dtype(float), others={})
    real = real._replace(one=lambda dYs: s.one(dYs).real)
    assert diagnose(real._replace(hand=[a.real for a in adjoint])) == "conj(dY) instead of dY"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0, 0, 1, 0, 0], "only example 2: misses the sum over the batch"),
        ([1, 1, 1, 1, 0], "misses example 4"),
        ([2, 2, 2, 2, 0], "2 × too large and misses example 4"),
        ([0, 1, 1, 0, 0], "only examples 1 and 2: misses the sum over the batch"),
        ([1, 1, 3, 1, 1], "example 2 weighted 3 in the sum over the batch"),
        ([1, 2, 3, 4, 5], "examples weighted 1, 2, 3, 4, 5"),
    ],
)
def test_examples_of_a_sum(weights, expected):
    s = specimen(np.random.default_rng(0))
    w = np.array(weights, float)[:, None, None]
    assert diagnose(s._replace(hand=[s.one([w * draw[0]]) for draw in s.dYs])) == expected
