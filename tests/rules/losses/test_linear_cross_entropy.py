"""Projection and loss in one: what it never materializes, what it makes of bad labels, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit
from rules.losses.rows import both, outcomes
from rules.refusals import refuses

import handgrad as hg
from handgrad import layers, rules

OP = "linear_cross_entropy"
RNG = np.random.default_rng(0)
X, W, B = (RNG.standard_normal(shape) for shape in ((4, 3, 5), (5, 7), (7,)))
LABELS = np.array([[0, 6, 1], [2, 2, 3], [1, 4, 1], [5, 0, 0]])
DC = np.array([1.0, -2.0, 0.5, 0.25])
OTHERS = np.array([0, 2, 3])


def test_temporary_memory_is_the_chunks():
    """4,096 tokens of 1,024 classes: the logits alone, once, would be 16.8 MB; a chunk of 128 is 0.5 MB."""
    tokens, n_in, n, chunk = 4096, 16, 1024, 128
    x = jax.ShapeDtypeStruct((1, tokens, n_in), np.float32)
    params = hg.LinearParams(jax.ShapeDtypeStruct((n_in, n), np.float32), jax.ShapeDtypeStruct((n,), np.float32))
    labels = jax.ShapeDtypeStruct((1, tokens), np.int32)
    loss = layers.linear_cross_entropy(chunk=chunk, z_loss=1e-4, softcap=30.0)
    head = layers.projection(n)

    def gradients(params, x, labels):
        return hg.value_and_grad(head, loss, argnums=(0, 1))(params, x, labels)

    def folds(params, x, labels):
        _, factors = hg.value_and_factors(head, loss)(params, x, labels)
        return [(factor.sum(), factor.sum(jnp.ones(1)), factor.sq_norms()) for factor in factors]

    for function in (gradients, folds):
        compiled = jax.jit(function).lower(params, x, labels).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < tokens * n * 4 / 4


def test_transposed_weights_are_not_copied():
    """Neither they nor their gradient, of 131 kB each: the memory is that of weights that aren't transposed."""
    x, labels = jax.ShapeDtypeStruct((1, 32, 64), np.float32), jax.ShapeDtypeStruct((1, 32), np.int32)

    def temporary(head):
        params = jax.eval_shape(head.init, jax.random.key(0), x)
        gradients = hg.value_and_grad(head, layers.linear_cross_entropy(chunk=8), argnums=(0, 1))
        return jax.jit(gradients).lower(params, x, labels).compile().memory_analysis().temp_size_in_bytes

    assert temporary(layers.tied_projection(512)) < temporary(layers.projection(512, bias=False)) + 65_536


def test_any_chunk_gives_the_same():
    """Chunks that divide the tokens or don't, of one token, of more than there are."""
    whole, *found = outcomes([(OP, X, W, B, LABELS, {"chunk": chunk}) for chunk in (3, 1, 5, 12, 1000)], DC, jax.jit)
    for outcome in found:
        assert_same(outcome, whole)


def test_at_once_is_both_passes():
    """The last chunk filled up, labels to ignore, every option."""
    labels, options = (
        LABELS.copy(),
        {"chunk": 5, "ignore_index": -1, "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0},
    )
    labels[1, 2] = labels[2] = -1

    @jax.jit
    def two_ways(X):
        C, cotangents = rules.linear_cross_entropy_at_once(X, W, B, labels, DC, **options)
        found, residuals = rules.linear_cross_entropy_forward(X, W, B, labels, **options)
        *expected, _ = rules.linear_cross_entropy_backward(residuals, DC, **options)
        return (C, *cotangents), (found, *hg.materialize(expected))

    assert_same(*two_ways(X))


def test_of_transposed_weights():
    """W as (n, n_in): the same of its transpose, in both passes and at once; its factor is the transpose."""
    labels, options = np.where(LABELS == 1, -1, LABELS), {"chunk": 5, "ignore_index": -1, "softcap": 3.0}
    dL = DC[:, None] * np.ones((1, 3))

    @jax.jit
    def both_forms(X):
        found = []
        for of, weights, turn in ((options, W, (0, 1)), ({**options, "transposed": True}, W.T, (1, 0))):
            C, residuals = rules.linear_cross_entropy_forward(X, weights, B, labels, **of)
            dX, dW, db, _ = rules.linear_cross_entropy_backward(residuals, DC, **of)
            folds = [a.transpose(turn) for a in (dW.sum(), dW.sum(DC), dW.with_sides().sum())]
            each = [a.transpose(turn) for a in dW.per_example()]
            L, residuals = rules.linear_log_probability_forward(X, weights, B, labels, **of)
            of_L = hg.materialize(rules.linear_log_probability_backward(residuals, dL, **of))
            found.append((C, dX, db.sum(), folds, each, L, of_L[0], of_L[1].transpose(turn)))
        (C, dX, db, (dW, *_), *_), turned = found
        _, at_once = rules.linear_cross_entropy_at_once(X, W.T, B, labels, DC, **options, transposed=True)
        return (turned, at_once), (found[0], (dX, dW.T, db))

    assert_same(*both_forms(X))


def test_a_token_to_ignore_may_hold_anything():
    """NaN there is in no loss, no cotangent, no example's gradient and no side that curvature reads."""
    ignored = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], bool)
    labels, options = np.where(ignored, -1, LABELS), {"chunk": 5, "ignore_index": -1, "z_loss": 0.1, "softcap": 3.0}

    @jax.jit
    def run(X):
        C, residuals = rules.linear_cross_entropy_forward(X, W, B, labels, **options)
        dX, dW, db, _ = rules.linear_cross_entropy_backward(residuals, DC, **options)
        each = [(factor.sum(), factor.sum(DC), factor.per_example(), factor.with_sides().sum()) for factor in (dW, db)]
        return C, dX, each

    found, expected = (run(np.where(ignored[..., None], fill, X)) for fill in (np.nan, 0.0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_bad_label():
    """NaN in its example's loss and its token's dX; the other examples are unaffected. Ignored, it costs 0."""
    rows, bad = [(OP, X, W, B, LABELS, {"chunk": 4})], (7, -1, -100, np.iinfo(np.int32).max)
    for label in bad:
        labels = LABELS.copy()
        labels[1, 2] = label
        rows += [(OP, X, W, B, labels, {"chunk": 4, **more}) for more in ({}, {"ignore_index": int(label)})]
    (good, good_dX, *_), *found = outcomes(rows, DC, jax.jit)
    for C, dX, dW, _, _ in found[::2]:
        assert np.isnan(C).tolist() == [False, True, False, False]
        assert (C[OTHERS] == good[OTHERS]).all()
        assert np.isnan(dX).all(2).sum() == np.isnan(dX).any(2).sum() == 1
        assert np.isnan(dX[1, 2]).all()
        np.testing.assert_array_equal(dX[OTHERS], good_dX[OTHERS])
        assert np.isnan(dW).all()
    for C, dX, dW, db, _ in found[1::2]:
        np.testing.assert_allclose(C[OTHERS], good[OTHERS], rtol=1e-13)
        assert (dX[1, 2] == 0).all()
        assert all(np.isfinite(a).all() for a in (C, dW, db))


def test_edges():
    """Nothing counts; no example; a bias of 200, whose e^z overflows float32, beside a row that fills up the last chunk
    and beside ignored ones."""
    large = [a.astype(np.float32) for a in (X, W, B + 200)]
    nothing, *finite = outcomes(
        [
            (OP, X, W, B, np.full((4, 3), -100), {"ignore_index": -100, "z_loss": 0.1, "label_smoothing": 0.1}),
            (OP, *large, LABELS, {"chunk": 5}),
            (OP, *large, LABELS, {"chunk": 5, "ignore_index": 6}),
        ],
        DC,
    )
    assert all((a == 0).all() for a in nothing[:4])
    assert all(np.isfinite(a).all() for outcome in finite for a in outcome[:4])
    ((C, dX, dW, db, _),) = outcomes([(OP, X[:0], W, B, LABELS[:0])])
    assert (C.shape, dX.shape) == ((0,), (0, 3, 5))
    assert (dW == 0).all()
    assert (db == 0).all()


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "ignore_index": 3}], ids=str)
def test_a_common_offset(options):
    """Softmax doesn't see what all logits of a row have in common: float32 gives what its rounded logits give.

    X W is a multiple of ¼ without rounding, so that both ways have the same logits at every offset."""
    x, w = (np.random.default_rng(1).integers(-2, 3, shape).astype(np.float32) / 2 for shape in ((16, 4), (4, 7)))
    labels = np.arange(16) % 7

    @optimized_jit
    def two_ways(b):
        chunked = both(OP, x, w, b, labels, chunk=5, **options)
        Z, of_linear = rules.linear_forward(jnp.asarray(x), w, b)
        whole, dZ, *_ = both("softmax_cross_entropy", Z, labels, **options)
        return chunked[:4], (whole, *hg.materialize(rules.linear_backward(of_linear, dZ)))

    for offset in (0, 1e4, -1e4, 1e6, -1e6, 1e8, -1e8, -3e38):
        found, expected = two_ways(np.full(7, offset, np.float32))
        assert_same(found, expected, rtol=1e-6)
        np.testing.assert_allclose(np.sum(found[3]), 0, atol=3e-6)
    found, expected = two_ways(np.array([0, -3e38, 0, -3e38, 0, -3e38, 0], np.float32))  # three classes masked
    assert_same(found, expected, rtol=1e-6)
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_label_that_is_all_but_sure(dtype):
    """Logits (x, 0, 0) and label 0: the loss is log(1 + 2 / e^x) and its slope −2 / (2 + e^x), down to e^-80."""
    x = np.linspace(-80, 80, 65).astype(dtype)
    w, none = np.array([[1, 0, 0]]).astype(dtype), np.zeros(3).astype(dtype)
    ((C, dX, *_),) = outcomes([(OP, x[:, None], w, none, np.zeros(65, int))])
    x = x.astype(np.float64)
    np.testing.assert_allclose(C.astype(np.float64), np.logaddexp(0, np.log(2) - x), rtol=4 * jnp.finfo(dtype).eps)
    np.testing.assert_allclose(dX[:, 0].astype(np.float64), -2 / (2 + np.exp(x)), rtol=4 * jnp.finfo(dtype).eps)


def test_bfloat16_logits_are_not_rounded():
    """Closer to the truth than linear and softmax_cross_entropy, which round every logit."""
    small = [a.astype(jnp.bfloat16) for a in (X, W, B)]
    (truth, *_), found = outcomes([(OP, *(a.astype(np.float64) for a in small), LABELS), (OP, *small, LABELS)], DC)
    assert {a.dtype for a in found[:4]} == {jnp.dtype(jnp.bfloat16)}
    separate = optimized_jit(lambda *of: rules.softmax_cross_entropy(rules.linear(*of), LABELS))(*small)
    error, other = (np.abs(np.asarray(C, np.float64) - truth).max() for C in (found[0], separate))
    assert error <= other
    assert error <= float(jnp.finfo(jnp.bfloat16).eps) * np.abs(truth).max() / 2


def test_bad_input():
    refuse = functools.partial(refuses, rules.linear_cross_entropy)
    refuse("W must have shape (n_in, n), got float64 (7,)", X, W[0], B, LABELS)
    refuse("X must have shape (4, 3, 7) to meet W (7, 5), got float64 (4, 3, 5)", X, W.T, B, LABELS)
    refuse("W must have shape (n, n_in), got float64 (7,)", X, W[0], B, LABELS, transposed=True)
    refuse("X must have shape (4, 3, 7) to meet W (5, 7), got float64 (4, 3, 5)", X, W, B, LABELS, transposed=True)
    refuse("b must have shape (7,) to meet W (5, 7), got float64 (6,)", X, W, B[1:], LABELS)
    refuse("the labels Y must have shape (4, 3) …, got int64 (4,)", X, W, B, LABELS[:, 0])
    refuse("the labels Y must be integers, got float64 (4, 3)", X, W, B, LABELS + 0.5)
    for option, value, expected in (
        ("chunk", 0, "a positive integer"),
        ("chunk", 2.0, "a positive integer"),
        ("label_smoothing", 1, "in [0, 1)"),
        ("ignore_index", 1.0, "an integer of 32 bits or None"),
        ("z_loss", -1, "a positive number"),
        ("softcap", 0, "a positive number"),
    ):
        refuse(f"{option} must be {expected}, got {value}", X, W, B, LABELS, **{option: value})
