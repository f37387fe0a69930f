"""CTC against brute force, published numbers and optax, and at the edges of its lengths."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)


@functools.partial(jax.jit, static_argnames=("blank", "residuals"))
def run(Z, labels, frames, length, dC=None, blank=0, residuals="save"):
    """The loss, and dZ."""
    C, kept = rules.ctc_loss_forward(Z, labels, frames, length, blank=blank, residuals=residuals)
    return C, rules.ctc_loss_backward(kept, jnp.ones_like(C) if dC is None else dC, blank=blank)[0]


def read(path, blank):
    """What a path reads as: repeats merged, blanks taken out."""
    return [k for k, _ in itertools.groupby(path) if k != blank]


def brute_force(Z, labels, blank=0):
    """−log of the sum over every path that reads as the labels."""
    every = itertools.product(range(Z.shape[1]), repeat=Z.shape[0])
    paths = np.array([path for path in every if read(path, blank) == list(labels)])
    return -jax.nn.logsumexp(jax.nn.log_softmax(Z)[np.arange(Z.shape[0])[None], paths].sum(1))


def test_brute_force_over_all_paths():
    cases = [([1, 2], 0), ([1, 1], 0), ([], 0), ([2, 0, 2], 1), ([0], 2)]
    Z = RNG.standard_normal((4, 3)) * 2
    truths = jax.jit(lambda Z: [jax.value_and_grad(brute_force)(Z, labels, blank) for labels, blank in cases])(Z)
    for (labels, blank), (expected, slope) in zip(cases, truths, strict=True):
        padded = np.array([[*labels, 9, 9, 9][:3]])
        C, dZ = run(Z[None], padded, np.array([4]), np.array([len(labels)]), blank=blank)
        np.testing.assert_allclose(C[0], expected, rtol=1e-13)
        np.testing.assert_allclose(dZ[0], slope, atol=1e-14)


def test_a_network_that_is_sure_of_its_path():
    """In float32, each frame's gradient to the digits of its largest element, which may be e^-gap small."""
    gaps = np.array([0.0, 5.0, 10.0, 20.0])
    Z = np.round(np.random.default_rng(3).standard_normal((5, 5)) * 16) / 16  # no rounding in float32
    Z = Z + gaps[:, None, None] * np.eye(5)[[1, 1, 0, 2, 2]]
    _, dZ = optimized_jit(run)(Z.astype(np.float32), np.full((4, 2), [1, 2]), np.full(4, 5), np.full(4, 2))
    truth = jax.jit(jax.vmap(jax.grad(lambda Z: brute_force(Z, [1, 2]))))(Z)
    error = np.abs(np.asarray(dZ, np.float64) - truth).max(axis=2) / np.abs(truth).max(axis=2)
    assert error.max() < 1e-5


def of_optax(Z, labels, frames, length):
    ends = (Z.shape[1], frames), (labels.shape[1], length)
    of_frames, of_labels = ((np.arange(n)[None] >= of[:, None]).astype(float) for n, of in ends)
    return optax.losses.ctc_loss(Z, of_frames, labels, of_labels)


def test_a_long_sequence_keeps_its_digits():
    """In float32, α over 1500 frames of 20 classes, log p = -2500: not rounded to its size; a number added to a whole
    frame changes nothing, so that each frame's gradient sums to 0."""
    rng = np.random.default_rng(4)
    Z = np.round(rng.standard_normal((1, 1500, 20)) * 16) / 16
    rest = rng.integers(1, 20, (1, 150)), np.array([1500]), np.array([150])
    C, dZ = optimized_jit(run)(Z.astype(np.float32), *rest)
    expected, truth = jax.jit(jax.value_and_grad(lambda Z: of_optax(Z, *rest)[0]))(Z)
    np.testing.assert_allclose(C, [expected], rtol=1e-6)
    np.testing.assert_allclose(dZ, truth, rtol=0, atol=6e-5 * np.abs(truth).max())
    np.testing.assert_allclose(np.asarray(dZ).sum(-1), 0, atol=1e-6)


# Graves' own implementation's numbers on two sequences, as TensorFlow's test of ctc_loss prints them. The classes are
# 0 … 4 and the blank, 5. Each has a single path: the printed gradient is P − one-hot of the path. Behind the five
# frames, both have two of padding, and the padding is NaN.
GRAVES = {  # loss -> path, P
    3.34211: (
        [0, 1, 2, 1, 0],
        [
            [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
    ),
    5.42262: (
        [0, 1, 5, 1, 0],
        [
            [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
            [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ],
    ),
}


def test_graves_numbers():
    paths, P = map(np.array, zip(*GRAVES.values(), strict=True))
    Z = np.concatenate([np.log(P), np.full((2, 2, 6), np.nan)], axis=1)
    given = np.array([[0, 1, 2, 1, 0], [0, 1, 1, 0, -1]]), np.array([5, 5]), np.array([5, 4])
    for policy in ("save", "recompute"):
        C, dZ = map(np.asarray, run(Z, *given, blank=5, residuals=policy))
        np.testing.assert_allclose(C, [*GRAVES], atol=6e-6, rtol=0)  # as many digits as are printed
        np.testing.assert_allclose(dZ[:, :5], P - np.eye(6)[paths], atol=1.1e-6)
        assert (dZ[:, 5:] == 0).all()


def test_optax():
    """Another forward recursion; its −10⁵ for log 0 makes an impossible loss finite, ours is +∞."""
    Z, weights = RNG.standard_normal((4, 7, 5)), np.arange(1.0, 5.0)
    rest = np.array([[1, 2, 3], [4, 4, 0], [2, 0, 0], [1, 1, 1]]), np.array([7, 6, 5, 4]), np.array([3, 2, 1, 3])

    @jax.jit
    def theirs(Z):
        C, pull = jax.vjp(lambda Z: of_optax(Z, *rest), Z)
        return C, *pull(weights)

    (C, dZ), (expected, slope) = (map(np.asarray, of) for of in (run(Z, *rest, weights), theirs(Z)))
    assert_same((C[:3], dZ[:3]), (expected[:3], slope[:3]), 1e-12)
    assert C[3] == np.inf
    assert 1e4 < expected[3] < np.inf
    assert (dZ[3] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_longer_than_the_input(dtype):
    """+∞ and a gradient of 0, whatever its cotangent; a label that repeats needs a blank, and with it a frame, more.
    The example beside them is unaffected."""
    labels = np.array([[1, 2], [1, 2], [1, 1], [1, 1], [1, 0], [0, 0], [2, 1]])
    lengths, frames = np.array([2, 2, 2, 2, 1, 0, 2]), np.array([2, 1, 3, 2, 0, 0, 4])
    possible = np.array([True, False, True, False, False, True, True])
    Z = RNG.standard_normal((7, 4, 3)).astype(dtype)
    C, dZ = map(np.asarray, run(Z, labels, frames, lengths, np.array([3.0] * 6 + [1.0], dtype)))
    np.testing.assert_array_equal(np.inf == C, ~possible)
    np.testing.assert_array_equal(np.abs(dZ).max((1, 2)) > 0.1, possible & (frames > 0))
    assert np.isfinite(dZ).all()
    assert C[5] == 0
    alone = run(Z, np.full((7, 2), [2, 1]), np.full(7, 4), np.full(7, 2), np.ones(7, dtype))
    assert_same((C[-1], dZ[-1]), tuple(np.asarray(a)[-1] for a in alone), 1e-6 if dtype == "float32" else 1e-14)


def test_padding_is_never_read():
    """NaN behind the frames, anything behind the labels; the answer is the one without padding."""
    Z, lengths = RNG.standard_normal((1, 3, 4)), (np.array([3]), np.array([2]))
    expected = run(Z, np.array([[2, 1]]), *lengths)
    padded = np.concatenate([Z, np.full((1, 2, 4), np.nan)], axis=1)
    for waste in (0, -7, 99):
        C, dZ = map(np.asarray, run(padded, np.array([[2, 1, waste]]), *lengths))
        assert_same((C, dZ[:, :3]), expected, 1e-14)
        assert (dZ[:, 3:] == 0).all()


def test_what_can_not_be_seen_at_trace_time():
    """A label that is no class or the blank, a length out of range: NaN for the example, and for it alone. So does a
    logit that is NaN in a frame that counts; it is not taken for an impossible one. A logit of −∞ is an impossible one:
    no path goes there."""
    bad = [(4, 5, 2), (-1, 5, 2), (0, 5, 2), (1, 6, 2), (1, -1, 2), (1, 5, 3), (1, 5, -1)]
    label, frames, length = np.array([(1, 5, 2), *bad, (1, 5, 2), (1, 5, 2), (3, 5, 2)]).T
    Z, labels = RNG.standard_normal((11, 5, 4)), np.stack([np.full(11, 2), label], 1)
    Z[8, 2, 1], Z[9:, :, 3] = np.nan, -np.inf
    C, dZ = map(np.asarray, run(Z, labels, frames, length))
    assert np.isnan(C).tolist() == [False] + [True] * 8 + [False] * 2
    assert np.isnan(dZ[:8]).all((1, 2)).tolist() == [False] + [True] * 7
    assert np.isnan(dZ[8]).any()
    assert np.isfinite(dZ[[0, 9, 10]]).all()
    assert np.isfinite(C[0])
    expected, slope = map(np.asarray, run(Z[9:10, :, :3], labels[9:10], frames[9:10], length[9:10]))
    assert_same((C[9:10], dZ[9:10, :, :3]), (expected, slope), 1e-13)
    assert (dZ[9, :, 3] == 0).all()
    assert C[10] == np.inf


def test_integers_of_every_dtype():
    Z, arguments = RNG.standard_normal((2, 5, 4)), (np.array([[2, 1], [3, 0]]), np.array([5, 4]), np.array([2, 1]))
    dtypes = ("int8", "uint16", "uint64", "int64")
    given = [tuple(a.astype(dtype) for a in arguments) for dtype in dtypes]
    *found, expected = jax.jit(lambda Z, given: [run(Z, *of) for of in given])(Z, given)
    for one in found:
        assert_same(one, expected)


GOOD = (np.zeros((2, 5, 4)), np.ones((2, 3), int), np.array([5, 5]), np.array([3, 3]))


def test_arguments_of_the_wrong_kind():
    Z, labels, frames, lengths = GOOD
    refuse = functools.partial(refuses, rules.ctc_loss)
    refuse("the logits Z must have shape (batch, time, classes), got float64 (2, 4)", Z[:, 0], labels, frames, lengths)
    for wrong, got in (
        (np.ones((2, 3)), "float64 (2, 3)"),
        (np.ones(2, int), "int64 (2,)"),
        (np.ones((3, 3), int), "int64 (3, 3)"),
        ([[1, 2], [1, 2]], "list"),
    ):
        refuse(f"labels must be integers (batch, max_labels) of batch 2, got {got}", Z, wrong, frames, lengths)
    of_lengths = "_lengths must be integers (batch,) of batch 2, got"
    refuse(f"input{of_lengths} float64 (2,)", Z, labels, np.array([5.0, 5.0]), lengths)
    refuse(f"input{of_lengths} int64 ()", Z, labels, np.array(5), lengths)
    refuse(f"label{of_lengths} int64 (1,)", Z, labels, frames, np.array([3]))
    refuse(f"label{of_lengths} NoneType", Z, labels, frames, None)


def kept_by(**options):
    """The shapes of the residuals."""
    return jax.eval_shape(functools.partial(rules.ctc_loss_forward, **options), *GOOD)[1]


@pytest.mark.parametrize("blank", [-1, 4, 1.0, True, None])
def test_a_blank_that_is_no_class(blank):
    sentence = f"blank must be a class, an integer in 0 … 3, got {blank!r}"
    refuses(rules.ctc_loss, sentence, *GOOD, blank=blank)
    with pytest.raises(hg.InputError, match=f"{re.escape(sentence)}$"):
        rules.ctc_loss_backward(kept_by(), np.ones(2), blank=blank)


def test_what_each_policy_keeps():
    assert kept_by().log_alpha.shape == (2, 6, 7)
    assert kept_by(residuals="recompute").log_alpha is None
    by_loss = jax.eval_shape(layers.ctc_loss(residuals="recompute").forward, GOOD[0], layers.CtcTarget(*GOOD[1:]))
    assert by_loss[1].log_alpha is None
    refuses(rules.ctc_loss, "residuals must be 'save' or 'recompute', got 'mask'", *GOOD, residuals="mask")
