"""The transducer against brute force and published numbers, and at the edges of its lengths."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)


@functools.partial(jax.jit, static_argnames=("blank", "residuals"))
def run(Z, labels, frames, length, dC=None, blank=0, residuals="save"):
    """The loss, and dZ."""
    C, kept = rules.transducer_loss_forward(Z, labels, frames, length, blank=blank, residuals=residuals)
    return C, rules.transducer_loss_backward(kept, jnp.ones_like(C) if dC is None else dC, blank=blank)[0]


def brute_force(Z, labels, blank=0):
    """−log of the sum over every order of T − 1 blanks and the labels, and one blank more."""
    log_P, (time, count) = jax.nn.log_softmax(Z), (Z.shape[0], len(labels))
    paths = []
    for places in itertools.combinations(range(time - 1 + count), count):
        t = u = 0
        log_p = 0.0
        for step in range(time - 1 + count):
            if step in places:
                log_p, u = log_p + log_P[t, u, labels[u]], u + 1
            else:
                log_p, t = log_p + log_P[t, u, blank], t + 1
        paths.append(log_p + log_P[t, u, blank])
    return -jax.nn.logsumexp(jnp.stack(paths))


def test_brute_force_over_all_paths():
    """Three sizes of lattice, behind each its padding of NaN, which is never read; the last blank is another class."""
    sizes = [(3, [2, 2], 0), (1, [1, 3], 0), (3, [0], 2), (2, [], 0)]
    Z = RNG.standard_normal((4, 3, 3, 4)) * 2
    grads = [jax.value_and_grad(functools.partial(brute_force, labels=labels, blank=k)) for _, labels, k in sizes]
    own = [z[:t, : len(labels) + 1] for z, (t, labels, _) in zip(Z, sizes, strict=True)]
    truths = jax.jit(lambda own: [grad(z) for grad, z in zip(grads, own, strict=True)])(own)
    padded = np.full_like(Z, np.nan)
    for of, z in zip(padded, own, strict=True):
        of[: z.shape[0], : z.shape[1]] = z
    frames, lengths = np.array([t for t, _, _ in sizes]), np.array([len(labels) for _, labels, _ in sizes])
    labels = np.array([[*labels, -7, 99][:2] for _, labels, _ in sizes])
    found = {
        k: run(padded, labels, frames, lengths, blank=k, residuals=kept) for k, kept in ((0, "save"), (2, "recompute"))
    }
    for b, ((t, own_labels, k), (expected, slope)) in enumerate(zip(sizes, truths, strict=True)):
        C, dZ = (np.asarray(a)[b] for a in found[k])
        np.testing.assert_allclose(C, expected, rtol=1e-13)
        np.testing.assert_allclose(dZ[:t, : len(own_labels) + 1], slope, atol=1e-14)
        assert np.count_nonzero(dZ) == slope.size


# What warp-transducer's tests print, as torchaudio's and NeMo's do after them: logits, costs and gradients.
SMALL = [
    [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.2, 0.8, 0.1]],
    [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1, 0.1], [0.7, 0.1, 0.2, 0.1, 0.1]],
]
SMALL_SLOPES = [
    [
        [-0.13116688, -0.3999269, 0.17703125, 0.17703125, 0.17703125],
        [-0.18572757, 0.12247056, -0.18168412, 0.12247056, 0.12247056],
        [-0.32091254, 0.06269141, 0.06928472, 0.12624499, 0.06269141],
    ],
    [
        [0.05456069, -0.21824276, 0.05456069, 0.05456069, 0.05456069],
        [0.12073959, 0.12073959, -0.48295835, 0.12073959, 0.12073959],
        [-0.6925882, 0.16871116, 0.18645467, 0.16871116, 0.16871116],
    ],
]
TWO = """
0.065357 0.787530 0.081592 0.529716 0.750675 0.754135 0.609764 0.868140 0.622532 0.668522 0.858039 0.164539
0.989780 0.944298 0.603168 0.946783 0.666203 0.286882 0.094184 0.366674 0.736168 0.166680 0.714154 0.399400
0.535982 0.291821 0.612642 0.324241 0.800764 0.524106 0.779195 0.183314 0.113745 0.240222 0.339470 0.134160
0.505562 0.051597 0.640290 0.430733 0.829473 0.177467 0.320700 0.042883 0.302803 0.675178 0.569537 0.558474
0.083132 0.060165 0.107958 0.748615 0.943918 0.486356 0.418199 0.652408 0.024243 0.134582 0.366342 0.295830
0.923670 0.689929 0.741898 0.250005 0.603430 0.987289 0.592606 0.884672 0.543450 0.660770 0.377128 0.358021
"""
TWO_SLOPES = """
-0.186844 -0.062555 0.249399 -0.203377 0.202399 0.000977 -0.141016 0.079123 0.061893 -0.011552 -0.081280 0.092832
-0.154257 0.229433 -0.075176 -0.246593 0.146405 0.100188 -0.012918 -0.061593 0.074512 -0.055986 0.219831 -0.163845
-0.497627 0.209240 0.288387 0.013605 -0.030220 0.016615 0.113925 0.062781 -0.176706 -0.667078 0.367659 0.299419
-0.356344 -0.055347 0.411691 -0.096922 0.029459 0.067463 -0.063518 0.027654 0.035863 -0.154499 -0.073942 0.228441
-0.166790 -0.000088 0.166878 -0.172370 0.105565 0.066804 0.023875 -0.118256 0.094381 -0.104707 -0.108934 0.213642
-0.369844 0.180118 0.189726 0.025714 -0.079462 0.053748 0.122328 -0.238789 0.116460 -0.598687 0.302203 0.296484
"""


def test_published_numbers():
    """As many digits as are printed: the first in seven, the other two from logits of six."""
    Z = np.array(SMALL)[None]
    C, dZ = run(Z, np.array([[1, 2]]), np.array([2]), np.array([2]))
    np.testing.assert_allclose(C, [4.495666], rtol=1e-6)
    np.testing.assert_allclose(dZ[0], SMALL_SLOPES, atol=3e-7)
    Z, slopes = (np.array(numbers.split(), float).reshape(2, 4, 3, 3) for numbers in (TWO, TWO_SLOPES))
    C, dZ = run(Z, np.array([[1, 2], [1, 1]]), np.array([4, 4]), np.array([2, 2]))
    np.testing.assert_allclose(C, [4.2806528590890736, 3.9384369822503591], rtol=1e-6)
    np.testing.assert_allclose(dZ, slopes, atol=1.5e-6)


def test_a_network_that_is_sure_of_its_path():
    """In float32, each node's gradient to the digits of its largest element, which may be e^-gap small; and a sum of
    0, of every node."""
    gaps = np.array([0.0, 10.0, 20.0])
    Z = np.round(np.random.default_rng(3).standard_normal((3, 3, 3)) * 16) / 16  # no rounding in float32
    sure = np.array([[1, 0, 0], [2, 2, 0], [0, 0, 0]])  # label 1 in the first frame, 2 in the second
    Z = Z + gaps[:, None, None, None] * np.eye(3)[sure]
    _, dZ = optimized_jit(run)(Z.astype(np.float32), np.full((3, 2), [1, 2]), np.full(3, 3), np.full(3, 2))
    truth = jax.jit(jax.vmap(jax.grad(lambda Z: brute_force(Z, [1, 2]))))(Z)
    error = np.abs(np.asarray(dZ, np.float64) - truth).max(axis=3) / np.abs(truth).max(axis=3)
    assert error.max() < 1e-5
    np.testing.assert_allclose(np.asarray(dZ).sum(-1), 0, atol=1e-7)


def test_labels_without_a_frame_and_what_can_not_be_seen_at_trace_time():
    """No frame: 0 for no label, else +∞ with no gradient, and so is a class of −∞ that every path needs. A label that
    is no class or the blank, a length out of range, a logit of NaN: NaN for the example, and for it alone."""
    possible = [(2, 3, 2), (2, 0, 0)]  # label, frames, labels
    impossible = [(2, 0, 1), (3, 3, 2)]
    bad = [(4, 3, 2), (-1, 3, 2), (0, 3, 2), (2, 4, 2), (2, -1, 2), (2, 3, 3), (2, 3, -1), (2, 3, 2)]
    label, frames, length = np.array([*possible, *impossible, *bad]).T
    Z = RNG.standard_normal((12, 3, 3, 4))
    Z[3, ..., 3], Z[-1, 1, 1, 0] = -np.inf, np.nan
    C, dZ = map(np.asarray, run(Z, np.stack([np.ones(12, int), label], 1), frames, length))
    assert np.isfinite(C[:2]).all()
    assert C[1] == 0
    assert (C[2:4] == np.inf).all()
    assert np.isnan(C[4:]).all()
    assert np.isfinite(dZ[:4]).all()
    assert np.any(dZ[:4], axis=(1, 2, 3)).tolist() == [True, False, False, False]
    assert np.isnan(dZ[4:]).any(axis=(1, 2, 3)).all()
    alone = run(Z, np.full((12, 2), [1, 2]), np.full(12, 3), np.full(12, 2))
    assert_same((C[0], dZ[0]), tuple(np.asarray(a)[0] for a in alone), 1e-14)


GOOD = (np.zeros((2, 4, 3, 5)), np.ones((2, 2), int), np.array([4, 4]), np.array([2, 2]))


def test_arguments_of_the_wrong_kind():
    Z, labels, frames, lengths = GOOD
    refuse = functools.partial(refuses, rules.transducer_loss)
    refuse(
        "the logits Z must have shape (batch, time, labels + 1, classes), got float64 (2, 4, 5)", Z[:, :, 0], *GOOD[1:]
    )
    refuse("labels must have 2 columns, one less than Z, got int64 (2, 1)", Z, labels[:, :1], frames, lengths)
    refuse(
        "labels must be integers (batch, max_labels) of batch 2, got float64 (2, 2)", Z, labels * 1.0, frames, lengths
    )
    refuse("input_lengths must be integers (batch,) of batch 2, got int64 (1,)", Z, labels, frames[:1], lengths)
    refuse("label_lengths must be integers (batch,) of batch 2, got NoneType", Z, labels, frames, None)
    refuse("residuals must be 'save' or 'recompute', got 'mask'", *GOOD, residuals="mask")
    sentence = "blank must be a class, an integer in 0 … 4, got 5"
    refuse(sentence, *GOOD, blank=5)
    with pytest.raises(hg.InputError, match=f"{re.escape(sentence)}$"):
        rules.transducer_loss_backward(kept_by(), np.ones(2), blank=5)


def kept_by(**options):
    """The shapes of the residuals."""
    return jax.eval_shape(functools.partial(rules.transducer_loss_forward, **options), *GOOD)[1]


def test_what_each_policy_keeps():
    kept = kept_by()
    assert (kept.largest.shape, kept.rest.shape, kept.log_alpha.shape) == ((2, 4, 3), (2, 4, 3), (2, 7, 3))
    assert kept_by(residuals="recompute")[4:] == (None, None, None)
    by_loss = jax.eval_shape(hg.transducer_loss(residuals="recompute").forward, GOOD[0], hg.TransducerTarget(*GOOD[1:]))
    assert by_loss[1].log_alpha is None


def test_no_array_of_the_logits_size_but_dZ():
    """Both passes as one program: less than one more array of (time, labels + 1, classes) is ever live beside dZ."""
    Z = jax.ShapeDtypeStruct((1, 40, 11, 512), np.float32)
    labels, lengths = jax.ShapeDtypeStruct((1, 10), np.int32), jax.ShapeDtypeStruct((1,), np.int32)
    compiled = jax.jit(run).lower(Z, labels, lengths, lengths).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * 4 * np.prod(Z.shape)
