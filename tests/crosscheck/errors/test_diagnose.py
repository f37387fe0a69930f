"""A wrong gradient is called by its name; a right one, and noise, by none."""

import time

import jax.numpy as jnp
import numpy as np
import pytest
from crosscheck.errors.specimens import KINDS, SHAPES, by_hand, holds, noise, set_at, specimen

from handgrad.crosscheck.errors import diagnose

SPECIMENS = 64


def said_of(kind, count, seed=0):
    """(said, expected) for this many random specimens of a kind, of all shapes in turn."""
    rng = np.random.default_rng([seed, *kind.encode()])
    found = []
    for i in range(20 * count):
        s = specimen(rng, SHAPES[i % len(SHAPES)], draws=int(rng.integers(2, 5)))
        broken = KINDS[kind](rng, noise(rng, s) if kind != "bfloat16" else s)
        if broken is not None:
            found.append((diagnose(broken[0]), broken[1], s.value.shape))
        if len(found) == count:
            return found
    raise AssertionError(f"{kind} never applies")


@pytest.mark.parametrize("kind", KINDS)
def test_nine_in_ten_are_called_by_their_name(kind):
    found = said_of(kind, SPECIMENS)
    missed = [f"{shape}: {said!r} for {expected!r}" for said, expected, shape in found if not holds(said, expected)]
    assert len(missed) <= SPECIMENS // 10, "\n".join(missed[:10])


@pytest.mark.parametrize("size", [10.0, 0.1, 1e-3, 1e-9, 1e-12])
def test_noise_is_nothing(size):
    rng = np.random.default_rng(0)
    for i in range(2 * SPECIMENS):
        s = specimen(rng, SHAPES[i % len(SHAPES)], draws=1 + i % 4)
        assert diagnose(noise(rng, s, size)) == ""


def test_a_right_gradient_is_nothing():
    rng = np.random.default_rng(0)
    for dtype in (np.float64, np.float32, jnp.bfloat16, np.complex128, np.complex64):
        for shape in (*SHAPES, (), (1,), (0, 3)):
            assert diagnose(specimen(rng, shape, dtype=dtype, terms=("b", "c"))) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (np.conj, "conjugate missing"),
        (lambda H: np.swapaxes(H, -1, -2).conj(), "transposed and conjugate missing"),
        (lambda H: H.real + 0j, "the real part only"),
        (lambda H: 1j * H.imag, "the imaginary part only"),
        (lambda H: 1j * H, "multiplied by i"),
        (lambda H: -0.5j * H, "multiplied by −0.5i"),
        (lambda H: H * np.conj(1j) * 1j + 3, "off by a constant: 3"),
        (lambda H: H.astype(np.complex64), "dtype complex64 instead of complex128"),
        (lambda H: H / np.abs(H), "its sign only, g / |g|"),
    ],
)
def test_complex(change, expected):
    s = specimen(np.random.default_rng(0), (4, 4), dtype=np.complex128)
    assert diagnose(by_hand(s, change)) == expected


def test_wrong_in_two_ways():
    s = specimen(np.random.default_rng(0), (6, 6))
    said = diagnose(by_hand(s, lambda H: (-3 * np.swapaxes(H, 1, 2)).astype(np.float32)))
    assert said == "dtype float32 instead of float64; 3 × too large and sign flipped and transposed"
    assert diagnose(by_hand(s, lambda H: set_at(2 * H, (0, 0), lambda h: h * np.nan))) == (
        "NaN in 1 of 36 elements (element (0, 0)), elsewhere 2 × too large"
    )


def test_where_truth_is_zero_or_not_finite():
    s = specimen(np.random.default_rng(0))
    assert diagnose(s._replace(truth=[0 * t for t in s.truth])) == "nonzero, where the right gradient is zero"
    truth = [set_at(t[None], (0, 0), lambda h: h * np.nan)[0] for t in s.truth]
    assert diagnose(by_hand(s._replace(truth=truth), lambda H: 2 * H)) == "2 × too large"


@pytest.mark.parametrize("shape", [(1000,), (40, 25)])
def test_a_thousand_elements_take_milliseconds(shape):
    rng = np.random.default_rng(0)
    s = noise(rng, specimen(rng, shape, draws=4), 0.1)._replace(one=None)

    def seconds():
        start = time.perf_counter()
        assert diagnose(s) == ""
        return time.perf_counter() - start

    assert min(seconds() for _ in range(20)) < 0.01  # 2 ms where nothing else runs


def test_a_million_elements_take_a_moment():
    rng = np.random.default_rng(0)
    s = specimen(rng, (1000, 1000), draws=4, batched=True)._replace(one=None)
    wrong = by_hand(s, lambda H: set_at(H, (7,), lambda h: 0 * h))
    start = time.process_time()
    assert diagnose(wrong) == "right but for row 7: zero there"
    assert time.process_time() - start < 3  # 0.6 s where nothing else runs
