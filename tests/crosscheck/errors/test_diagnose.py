"""A wrong gradient is called by its name; a right one, and noise, by none."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crosscheck.errors.specimens import BATCH, KINDS, SHAPES, by_hand, made, noise, set_at, specimen

from handgrad.crosscheck.errors import diagnose
from handgrad.crosscheck.errors.catalogue import CATALOGUE
from handgrad.crosscheck.errors.error import nothing

SPECIMENS = 64
# Errors with no pattern, and with a bound that another number is as true as.
UNTOLD = ("noise", "small or large ones dropped")
TOLD = [error for error in CATALOGUE if error.make is not nothing and error.kind not in UNTOLD]
WHERE = re.compile(r"(?:, wrong where|, where| and) \|?x\|? [<>=]+ [^:]*")  # the same elements in further words


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


def holds(said, expected):
    said = (
        WHERE.sub("", said)
        if said.startswith(("right ", "wrong ")) and isinstance(expected, str) and "where" not in expected
        else said
    )
    return said == expected if isinstance(expected, str) else expected.match(said) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_nine_in_ten_are_called_by_their_name(kind):
    found = said_of(kind, SPECIMENS)
    missed = [f"{shape}: {said!r} for {expected!r}" for said, expected, shape in found if not holds(said, expected)]
    assert len(missed) <= SPECIMENS // 10, "\n".join(missed[:10])


@pytest.mark.parametrize("error", TOLD, ids=lambda error: error.kind)
def test_what_the_catalogue_makes_it_recognizes(error):
    rng = np.random.default_rng(0)
    found = []
    for shape, zeros in ((shape, zeros) for zeros in (0, 0.1) for shape in SHAPES):
        for dtype in (
            (np.float64, np.complex128) if "conjugate" in error.kind or "part" in error.kind else (np.float64,)
        ):
            s = specimen(rng, shape, dtype=dtype)
            s.value[rng.random(shape) < zeros] = 0
            found += [(diagnose(broken), words, shape) for broken, words in made(error, s)]
    missed = [f"{shape}: {said!r} for {words!r}" for said, words, shape in found if not holds(said, words)]
    assert found
    assert len(missed) <= len(found) // 10, "\n".join(missed[:10])


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


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.complex64, jnp.bfloat16])
def test_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    kinds = ("scale", "batch factor", "sign", "dropped leaf", "transposed", "examples permuted", "reversed", "NaN")
    for shape in SHAPES:
        s = specimen(rng, shape, dtype=dtype)
        for error in (error for error in TOLD if error.kind in kinds):
            for broken, words in made(error, s):
                said = diagnose(broken)
                assert holds(said, words) or words == "1.01 × too large", (error.kind, said, words)


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


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        (2, "2 × too large"),
        (1 / 3, "a third of what it should be"),
        (1 / 4, "a quarter of what it should be"),
        (2 / 3, "2/3 of what it should be"),
        (4 / 3, "4/3 × too large"),
        (1.01, "1.01 × too large"),
        (0.1, "0.1 of what it should be"),
        (1000, "1000 × too large"),
        (1.23456789e-9 + 1, "1.000000001235 × too large"),
        (3.0042386801, "3.004 × too large"),
        (np.sqrt(32), "5.657 × too large (= √batch)"),
        (32 / 31, "1.032 × too large (= batch / (batch − 1))"),
        (np.log(2), "0.693 of what it should be (= ln 2)"),
        (32.0, "sum instead of mean: factor 32 = batch"),
        (1 / 7, "mean instead of sum: factor 1/7 = 1/n_out"),
        (-1 / 32, "mean instead of sum: factor 1/32 = 1/batch and sign flipped"),
        (1 / 224, "0.004464 of what it should be (= 1/(batch × n_out))"),
    ],
)
def test_factors(c, expected):
    s = specimen(np.random.default_rng(0), sizes={"batch": 32, "n_out": 7})
    assert diagnose(by_hand(s, lambda H: c * H)) == expected


def test_one_number_is_only_a_factor():
    s = specimen(np.random.default_rng(0), (1,), draws=1, terms=())
    for c, expected in ((2, "2 × too large"), (-1, "sign flipped"), (0, "zero"), (0.37, "0.37 of what it should be")):
        assert diagnose(by_hand(s, lambda H, c=c: c * H)) == expected


@pytest.mark.parametrize(
    ("due", "change", "expected"),
    [
        ((3,), lambda h: np.stack([h / 5] * 5), "misses the sum over axis 0 (broadcast): shape (5, 3) instead of (3,)"),
        ((3,), lambda h: np.stack([h] * 5), "misses the mean over axis 0 (broadcast): shape (5, 3) instead of (3,)"),
        (
            (1, 3),
            lambda h: np.tile(h / 5, (5, 1)),
            "misses the sum over axis 0 (broadcast): shape (5, 3) instead of (1, 3)",
        ),
        (
            (3,),
            lambda h: np.tile(h / 20, (5, 4, 1)),
            "misses the sum over axes 0 and 1 (broadcast): shape (5, 4, 3) instead of (3,)",
        ),
        ((2, 3), lambda h: h.T, "transposed: shape (3, 2) instead of (2, 3)"),
        ((2, 3), lambda h: h.sum(0), "takes the sum over axis 0: shape (3,) instead of (2, 3)"),
        ((3,), lambda h: h[None], "right but for axes of length 1: shape (1, 3) instead of (3,)"),
        ((2, 3), lambda h: h.ravel(), "right but for its shape: shape (6,) instead of (2, 3)"),
        ((2, 3), lambda h: h.T.ravel(), "the right numbers in another order: shape (6,) instead of (2, 3)"),
        ((2, 3), lambda h: np.ones((4, 4)), "shape (4, 4) instead of (2, 3)"),
        ((), lambda h: np.ones(2), "shape (2,) instead of ()"),
    ],
)
def test_shapes(due, change, expected):
    s = specimen(np.random.default_rng(0), due)
    assert diagnose(s._replace(hand=[change(h) for h in s.hand])) == expected


def test_the_gradient_of_a_leaf_of_another_shape():
    rng = np.random.default_rng(0)
    b = [rng.standard_normal(4) for _ in range(3)]
    s = specimen(rng, (3, 4), others={"b": b}, hand=b)
    assert diagnose(s) == "the gradient of b: shape (4,) instead of (3, 4)"


def test_wrong_in_two_ways():
    s = specimen(np.random.default_rng(0), (6, 6))
    said = diagnose(by_hand(s, lambda H: (-3 * np.swapaxes(H, 1, 2)).astype(np.float32)))
    assert said == "dtype float32 instead of float64; 3 × too large and sign flipped and transposed"
    assert diagnose(by_hand(s, lambda H: set_at(2 * H, (0, 0), lambda h: h * np.nan))) == (
        "NaN in 1 of 36 elements (element (0, 0)), elsewhere 2 × too large"
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda H: H * np.nan, "NaN in every element"),
        (lambda H: set_at(H, (2,), lambda h: h * np.nan), "NaN in 4 of 12 elements (row 2)"),
        (lambda H: set_at(H, (2,), lambda h: h + np.inf), "infinite in 4 of 12 elements (row 2)"),
        (
            lambda H: set_at(H, (2,), lambda h: np.where(h > 0, np.inf, np.nan)),
            "NaN or infinite in 4 of 12 elements (row 2)",
        ),
    ],
)
def test_not_finite(change, expected):
    assert diagnose(by_hand(specimen(np.random.default_rng(0)), change)) == expected


def test_what_is_no_array_of_numbers():
    s = specimen(np.random.default_rng(0))
    assert diagnose(s._replace(hand=[np.zeros((3, 4), jax.dtypes.float0)] * 3)) == "dtype float0 instead of float64"
    assert diagnose(s._replace(hand=[np.ones((3, 4), int)] * 3)) == "dtype int64 instead of float64; 1 in every element"
    assert diagnose(s._replace(hand=[np.ones((2, 4)), *s.hand[1:]])) == "a shape that depends on the cotangent"


def test_nan_at_zero():
    s = specimen(np.random.default_rng(0))
    s.value[1, :2] = 0
    wrong = by_hand(s, lambda H: np.where(s.value == 0, np.nan, H))
    assert diagnose(wrong) == "NaN in 2 of 12 elements (where x == 0)"


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (lambda X: X == 0, "right but for elements where x == 0: 3 × too large there"),
        (lambda X: X <= 0, "right but for elements where x <= 0: 3 × too large there"),
        (lambda X: X > 1, "right but for elements where x > 1: 3 × too large there"),
        (lambda X: np.triu(np.ones(X.shape), 1) > 0, "right on and below the diagonal only: 3 × too large elsewhere"),
        (lambda X: np.eye(8) > 0, "right but for the diagonal: 3 × too large there"),
        (lambda X: X.max(-1, keepdims=True) == X, "right but for the largest of each row: 3 × too large there"),
        (lambda X: np.isin(np.indices(X.shape)[1], (2, 3, 4)), "right but for columns 2 to 4: 3 × too large there"),
        (lambda X: np.indices(X.shape)[0] != 5, "right for row 5 only: 3 × too large elsewhere"),
        (lambda X: np.indices(X.shape).max(0) < 3, "right but for [0:3, 0:3]: 3 × too large there"),
    ],
)
def test_places(mask, expected):
    rng = np.random.default_rng(0)
    s = specimen(rng, (8, 8))
    s.value[rng.random((8, 8)) < 0.1] = 0
    assert diagnose(by_hand(s, lambda H: np.where(mask(s.value), 3 * H, H))) == expected


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


def test_where_truth_is_zero_or_not_finite():
    s = specimen(np.random.default_rng(0))
    assert diagnose(s._replace(truth=[0 * t for t in s.truth])) == "nonzero, where the right gradient is zero"
    truth = [set_at(t[None], (0, 0), lambda h: h * np.nan)[0] for t in s.truth]
    assert diagnose(by_hand(s._replace(truth=truth), lambda H: 2 * H)) == "2 × too large"


@pytest.mark.parametrize(
    ("elsewhere", "expected"),
    [
        (0.0, "wrong in every nonzero element (8 of 600)"),
        (1e-18, "wrong in every element large enough to compare (8 of 600)"),
        (1.0, "right but for 8 of 600 elements"),
    ],
)
def test_right_is_only_what_is_large_enough_to_compare(elsewhere, expected):
    """An error that is a share of the gradient can't be seen where the gradient all but vanishes."""
    rng = np.random.default_rng(0)
    s = specimen(rng, (20, 30), value=rng.permutation(np.linspace(2, 3, 600)).reshape(20, 30))
    few = np.isin(np.arange(600), np.arange(5, 600, 79)[:8]).reshape(20, 30)
    truth = [np.where(few, t, elsewhere * t) for t in s.truth]
    wrong = few if elsewhere == 1 else True
    s = s._replace(truth=truth, hand=[t * (1 + 0.1 * wrong * rng.standard_normal(t.shape)) for t in truth])
    assert diagnose(s) == expected


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([2, -2, 3, 0.5, 0.2], "right but for element 1, where x < 0: zero there"),
        ([0.3, -2, 0.7, 0.5, 0.2], "right but for element 1, where x < 0 and |x| > 1: zero there"),
        ([-0.3, 2, -3, -0.5, -2], "right for element 1 only, wrong where x < 0: zero there"),
        ([2, -2, -3, 0.5, 0.2], "right but for elements where x < 0: zero there"),
    ],
)
def test_a_place_by_each_of_its_names(x, expected):
    s = specimen(np.random.default_rng(0), (5,), value=np.array(x), sizes={}, batched=False)
    assert diagnose(by_hand(s, lambda H: np.where(s.value < 0, 0, H))) == expected


def test_a_gradient_that_is_mostly_wrong_is_not_called_right():
    s = specimen(np.random.default_rng(0), (12, 10))
    s.value[...] = np.random.default_rng(1).permutation(np.linspace(0, 10, 120)).reshape(12, 10)
    for bound, words in ((6, "right but for"), (7, "wrong for")):
        wrong = by_hand(s, lambda H, bound=bound: np.where(s.value < bound, 3 * H, H))
        assert re.fullmatch(f"{words} elements where x < [0-9.]+: 3 × too large there", diagnose(wrong))


def test_a_large_factor_of_small_numbers_excuses_no_others():
    rng = np.random.default_rng(0)
    s = specimen(rng, (3, 4), sizes={})
    small = np.array([1, 1, 1e-14])[:, None]
    s = s._replace(truth=[small * t for t in s.truth], hand=[np.array([1, 1, 1e-8])[:, None] * t for t in s.truth])
    assert diagnose(s) == "right but for row 2: 1000000 × too large there"
    noisy = by_hand(s, lambda H: H + 1e-10 * np.array([1, 1, 0])[:, None] * rng.standard_normal(H.shape))
    assert diagnose(noisy) == ""


def test_draws_that_are_proportional_count_once():
    """A scalar output's gradients are: one element of two that is zero is no scaled shift."""
    s = specimen(np.random.default_rng(0), (2,), one=None, dYs=[[np.ones(())]] * 3, value=np.ones(2))
    truth = [c * s.truth[0] for c in (1.0, 2.0, -0.7)]
    assert (
        diagnose(s._replace(truth=truth, hand=[t * [1.0, 0.0] for t in truth])) == "right but for element 1: zero there"
    )


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


def test_rounding_noise_is_no_dtype():
    """A sum that cancels leaves a few bits, which any precision holds: that is zero, and computed in none."""
    s = specimen(np.random.default_rng(0), (6, 6))
    assert diagnose(by_hand(s, lambda H: 2.0**-55 * np.round(H))) == "zero"


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
    s = specimen(rng, (1000, 1000), draws=4)._replace(one=None)
    wrong = by_hand(s, lambda H: set_at(H, (7,), lambda h: 0 * h))
    start = time.process_time()
    assert diagnose(wrong) == "right but for row 7: zero there"
    assert time.process_time() - start < 3  # 0.6 s where nothing else runs
