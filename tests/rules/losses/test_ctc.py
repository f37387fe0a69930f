"""CTC against brute force, published numbers and optax, and at the edges of its lengths."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers, rules
from handgrad.cases.losses import ctc_loss

RNG = np.random.default_rng(0)


@functools.partial(jax.jit, static_argnames=("blank", "residuals"))
def both(arguments, dC, blank, residuals):
    C, kept = rules.ctc_loss_forward(*arguments, blank=blank, residuals=residuals)
    return C, rules.ctc_loss_backward(kept, dC, blank=blank)[0]


def run(Z, labels, frames, length, dC=None, blank=0, residuals="save"):
    """The loss, and dZ."""
    dC = jnp.ones(len(Z), jnp.asarray(Z).dtype) if dC is None else dC
    return both(tuple(map(jnp.asarray, (Z, labels, frames, length))), dC, blank, residuals)


def read(path, blank):
    """What a path reads as: repeats merged, blanks taken out."""
    return [k for k, _ in itertools.groupby(path) if k != blank]


def brute_force(Z, labels, blank=0):
    """−log of the sum over every path that reads as the labels."""
    every = itertools.product(range(Z.shape[1]), repeat=Z.shape[0])
    paths = np.array([path for path in every if read(path, blank) == list(labels)])
    return -jax.nn.logsumexp(jax.nn.log_softmax(Z)[np.arange(Z.shape[0])[None], paths].sum(1))


@pytest.mark.parametrize(("labels", "blank"), [([1, 2], 0), ([1, 1], 0), ([], 0), ([2, 0, 2], 1), ([0], 2)])
def test_brute_force_over_all_paths(labels, blank):
    Z = jnp.asarray(RNG.standard_normal((4, 3)) * 2)
    C, dZ = run(Z[None], np.array([labels], int), np.array([4]), np.array([len(labels)]), blank=blank)
    expected, slope = jax.value_and_grad(brute_force)(Z, labels, blank)
    np.testing.assert_allclose(C[0], expected, rtol=1e-13)
    np.testing.assert_allclose(dZ[0], slope, atol=1e-14)


@pytest.mark.parametrize("gap", [0.0, 5.0, 10.0, 20.0])
def test_a_network_that_is_sure_of_its_path(gap):
    """In float32, each frame's gradient to the digits of its largest element, which may be e^-gap small."""
    Z = np.round(np.random.default_rng(3).standard_normal((5, 5)) * 16) / 16  # no rounding in float32
    Z[np.arange(5), [1, 1, 0, 2, 2]] += gap
    _, dZ = run(Z[None].astype(np.float32), np.array([[1, 2]]), np.array([5]), np.array([2]))
    truth = np.asarray(jax.grad(brute_force)(jnp.asarray(Z), [1, 2]))
    error = np.abs(np.asarray(dZ[0], np.float64) - truth).max(axis=1) / np.abs(truth).max(axis=1)
    assert error.max() < 1e-5


def test_a_long_sequence_keeps_its_digits():
    """In float32, α over 1500 frames of 20 classes, log p = -2500: not rounded to its size."""
    rng = np.random.default_rng(4)
    Z = np.round(rng.standard_normal((1, 1500, 20)) * 16) / 16
    rest = np.array([[*rng.integers(1, 20, 150)]]), np.array([1500]), np.array([150])
    _, dZ = run(Z.astype(np.float32), *rest)
    truth = jax.jit(jax.grad(lambda Z: ctc_loss(Z, *map(jnp.asarray, rest))[0]))(jnp.asarray(Z))
    np.testing.assert_allclose(dZ, truth, rtol=0, atol=6e-5 * np.abs(truth).max())


# Graves' own implementation's numbers on two sequences, as TensorFlow's test of ctc_loss prints them. The classes are
# 0 … 4 and the blank, 5. Behind the five frames, both have two of padding, and the padding is NaN.
GRAVES = [
    (
        [0, 1, 2, 1, 0],
        3.34211,
        [
            [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
        [
            [-0.366234, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
            [0.111121, -0.411608, 0.278779, 0.0055756, 0.00569609, 0.010436],
            [0.0357786, 0.633813, -0.678582, 0.00249248, 0.00272882, 0.0037688],
            [0.0663296, -0.356151, 0.280111, 0.00283995, 0.0035545, 0.00331533],
            [-0.541765, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        ],
    ),
    (
        [0, 1, 1, 0],
        5.42262,
        [
            [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
            [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ],
        [
            [-0.69824, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
            [0.24082, -0.602467, 0.0557226, 0.0546814, 0.0557528, 0.19549],
            [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, -0.797544],
            [0.280884, -0.570478, 0.0326593, 0.0339046, 0.0326856, 0.190345],
            [-0.576714, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
        ],
    ),
]


def test_graves_numbers():
    Z = np.full((2, 7, 6), np.nan)
    labels = np.array([[0, 1, 2, 1, 0], [0, 1, 1, 0, -1]])
    for b, (_, _, P, _) in enumerate(GRAVES):
        Z[b, :5] = np.log(P)
    for policy in ("save", "recompute"):
        C, dZ = run(Z, labels, np.array([5, 5]), np.array([5, 4]), blank=5, residuals=policy)
        for b, (_, loss, _, slope) in enumerate(GRAVES):
            assert abs(C[b] - loss) <= 6e-6  # as many digits as are printed
            np.testing.assert_allclose(dZ[b, :5], slope, atol=1.1e-6)
            assert (dZ[b, 5:] == 0).all()


def test_optax():
    """Another forward recursion; its −10⁵ for log 0 makes an impossible loss finite, ours is +∞."""
    Z = jnp.asarray(RNG.standard_normal((4, 7, 5)))
    labels = np.array([[1, 2, 3], [4, 4, 0], [2, 0, 0], [1, 1, 1]])
    frames, length = np.array([7, 6, 5, 4]), np.array([3, 2, 1, 3])

    def theirs(Z):
        padding = [(np.arange(n)[None] >= of[:, None]).astype(float) for n, of in ((7, frames), (3, length))]
        return optax.losses.ctc_loss(Z, padding[0], labels, padding[1])

    C, dZ = run(Z, labels, frames, length, jnp.arange(1.0, 5.0))
    weights = jnp.arange(1.0, 5.0)
    expected, slope = jax.jit(lambda Z: (theirs(Z), jax.grad(lambda Z: jnp.sum(weights * theirs(Z)))(Z)))(Z)
    assert_same((C[:3], dZ[:3]), (expected[:3], slope[:3]), 1e-12)
    assert C[3] == jnp.inf
    assert 1e4 < expected[3] < jnp.inf
    assert (dZ[3] == 0).all()


@pytest.mark.parametrize(
    ("labels", "frames", "possible"),
    [([1, 2], 2, True), ([1, 2], 1, False), ([1, 1], 3, True), ([1, 1], 2, False), ([1], 0, False), ([], 0, True)],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_labels_longer_than_the_input(labels, frames, possible, dtype):
    """+∞ and a gradient of 0, whatever its cotangent; a label that repeats needs a blank, and with it a frame, more."""
    Z = jnp.asarray(RNG.standard_normal((2, 4, 3)), dtype)
    padded = np.array([[*labels, 0, 0][:2], [2, 1]])
    C, dZ = run(Z, padded, np.array([frames, 4]), np.array([len(labels), 2]), jnp.asarray([3.0, 1.0], dtype))
    assert (C[0] == jnp.inf) != possible
    assert (jnp.abs(dZ[0]).max() > 0.1) == (possible and frames > 0)
    assert jnp.isfinite(dZ).all()
    alone, slope = run(Z[1:], padded[1:], np.array([4]), np.array([2]))
    assert_same((C[1:], dZ[1:]), (alone, slope), 1e-6 if dtype == "float32" else 1e-14)
    if frames == 0 and possible:
        assert C[0] == 0


def test_padding_is_never_read():
    """NaN behind the frames, anything behind the labels; the answer is the one without padding."""
    Z = RNG.standard_normal((1, 5, 4))
    expected, slope = run(Z[:, :3], np.array([[2, 1]]), np.array([3]), np.array([2]))
    Z[:, 3:] = np.nan
    for waste in (0, -7, 99):
        C, dZ = run(Z, np.array([[2, 1, waste]]), np.array([3]), np.array([2]))
        assert_same((C, dZ[:, :3]), (expected, slope), 1e-14)
        assert (dZ[:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("label", "frames", "length"), [(4, 5, 2), (-1, 5, 2), (0, 5, 2), (1, 6, 2), (1, -1, 2), (1, 5, 3), (1, 5, -1)]
)
def test_what_can_not_be_seen_at_trace_time(label, frames, length):
    """A label that is no class or the blank, a length out of range: NaN for the example, and for it alone."""
    Z = jnp.asarray(RNG.standard_normal((2, 5, 4)))
    C, dZ = run(Z, np.array([[2, 1], [3, label]]), np.array([5, frames]), np.array([2, length]))
    assert jnp.isnan(C).tolist() == [False, True]
    assert jnp.isnan(dZ).all((1, 2)).tolist() == [False, True]
    assert jnp.isfinite(dZ[0]).all()


def test_a_logit_that_is_not_a_number():
    """In a frame that counts it makes loss and gradient NaN; it is not taken for an impossible one."""
    Z = jnp.asarray(RNG.standard_normal((1, 5, 4))).at[0, 2, 1].set(jnp.nan)
    C, dZ = run(Z, np.array([[2, 1]]), np.array([5]), np.array([2]))
    assert jnp.isnan(C).all()
    assert jnp.isnan(dZ).any()


def test_a_class_that_never_happens():
    """A logit of −∞: no path goes there, and nothing is NaN."""
    Z = jnp.asarray(RNG.standard_normal((1, 5, 4)))
    without = jnp.asarray(Z).at[:, :, 3].set(-jnp.inf)
    C, dZ = run(without, np.array([[2, 1]]), np.array([5]), np.array([2]))
    expected, slope = run(Z[:, :, :3], np.array([[2, 1]]), np.array([5]), np.array([2]))
    assert_same((C, dZ[:, :, :3]), (expected, slope), 1e-13)
    assert (dZ[:, :, 3] == 0).all()
    assert run(without, np.array([[2, 3]]), np.array([5]), np.array([2]))[0][0] == jnp.inf


def test_every_frames_gradient_sums_to_zero():
    """A number added to a whole frame changes nothing, and 500 frames of float32 keep to that."""
    Z = jnp.asarray(RNG.standard_normal((2, 500, 8)), jnp.float32)
    labels = RNG.integers(1, 8, (2, 60))
    C, dZ = run(Z, labels, np.array([500, 400]), np.array([60, 50]))
    np.testing.assert_allclose(dZ.sum(-1), 0, atol=1e-6)
    exact, slope = run(Z.astype(jnp.float64), labels, np.array([500, 400]), np.array([60, 50]))
    np.testing.assert_allclose(C, exact, rtol=1e-6)
    assert jnp.abs(dZ - slope).max() <= 1e-3


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int64", "uint64"])
def test_integers_of_every_dtype(dtype):
    Z = jnp.asarray(RNG.standard_normal((2, 5, 4)))
    arguments = (np.array([[2, 1], [3, 0]]), np.array([5, 4]), np.array([2, 1]))
    assert_same(run(Z, *(a.astype(dtype) for a in arguments)), run(Z, *arguments))


GOOD = (np.zeros((2, 5, 4)), np.ones((2, 3), int), np.array([5, 5]), np.array([3, 3]))


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, np.zeros((2, 4)), "the logits Z must have shape (batch, time, classes), got float64 (2, 4)"),
        (1, np.ones((2, 3)), "labels must be integers (batch, max_labels) of batch 2, got float64 (2, 3)"),
        (1, np.ones(2, int), "labels must be integers (batch, max_labels) of batch 2, got int64 (2,)"),
        (1, np.ones((3, 3), int), "labels must be integers (batch, max_labels) of batch 2, got int64 (3, 3)"),
        (1, [[1, 2], [1, 2]], "labels must be integers (batch, max_labels) of batch 2, got list"),
        (2, np.array([5.0, 5.0]), "input_lengths must be integers (batch,) of batch 2, got float64 (2,)"),
        (2, np.array(5), "input_lengths must be integers (batch,) of batch 2, got int64 ()"),
        (3, np.array([3]), "label_lengths must be integers (batch,) of batch 2, got int64 (1,)"),
        (3, None, "label_lengths must be integers (batch,) of batch 2, got NoneType"),
    ],
)
def test_arguments_of_the_wrong_kind(position, wrong, message):
    arguments = [*GOOD[:position], wrong, *GOOD[position + 1 :]]
    with pytest.raises(hg.InputError) as raised:
        rules.ctc_loss_forward(*arguments)
    assert str(raised.value) == f"ctc_loss_forward: {message}"


@pytest.mark.parametrize("blank", [-1, 4, 1.0, True, None])
def test_a_blank_that_is_no_class(blank):
    message = f"blank must be a class, an integer in 0 … 3, got {blank!r}"
    for run_it in (
        lambda: rules.ctc_loss_forward(*GOOD, blank=blank),
        lambda: rules.ctc_loss_backward(rules.ctc_loss_forward(*GOOD)[1], jnp.ones(2), blank=blank),
    ):
        with pytest.raises(hg.InputError) as raised:
            run_it()
        assert str(raised.value).endswith(message)


def test_a_policy_that_there_is_not():
    with pytest.raises(hg.InputError, match="residuals must be 'save' or 'recompute', got 'mask'"):
        rules.ctc_loss_forward(*GOOD, residuals="mask")


def test_what_each_policy_keeps():
    saved, recomputed = (rules.ctc_loss_forward(*GOOD, residuals=policy)[1] for policy in ("save", "recompute"))
    assert saved.log_alpha.shape == (2, 6, 7)
    assert recomputed.log_alpha is None
    assert layers.ctc_loss(residuals="recompute").forward(GOOD[0], layers.CtcTarget(*GOOD[1:]))[1].log_alpha is None
