"""Projection and loss in one: what it never holds, what it makes of bad labels, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers, rules

RNG = np.random.default_rng(0)
X, W, B = (jnp.asarray(RNG.standard_normal(shape)) for shape in ((4, 3, 5), (5, 7), (7,)))
LABELS = np.array([[0, 6, 1], [2, 2, 3], [1, 4, 1], [5, 0, 0]])
DC = jnp.asarray([1.0, -2.0, 0.5, 0.25])


def both(X, W, b, Y, **options):
    """C and the cotangents, multiplied out."""
    C, residuals = rules.linear_cross_entropy_forward(X, W, b, Y, **options)
    return C, hg.materialize(rules.linear_cross_entropy_backward(residuals, DC.astype(C.dtype), **options))


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


@pytest.mark.parametrize("chunk", [1, 5, 12, 1000])
def test_any_chunk_gives_the_same(chunk):
    """Chunks that divide the tokens or don't, of one token, of more than there are."""
    whole, cotangents = both(X, W, B, LABELS, chunk=3)
    C, found = both(X, W, B, LABELS, chunk=chunk)
    np.testing.assert_allclose(C, whole, rtol=1e-13)
    for one, other in zip(found[:3], cotangents[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_a_token_to_ignore_may_hold_anything():
    """NaN there is in no loss, no cotangent, no example's gradient and no side that curvature asks for."""
    ignored = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]], bool)
    labels, options = np.where(ignored, -1, LABELS), {"chunk": 5, "ignore_index": -1, "z_loss": 0.1, "softcap": 3.0}

    @jax.jit
    def run(X):
        C, residuals = rules.linear_cross_entropy_forward(X, W, B, labels, **options)
        dX, dW, db, _ = rules.linear_cross_entropy_backward(residuals, DC, **options)
        each = [(factor.sum(), factor.sum(DC), factor.per_example(), factor.with_sides().sum()) for factor in (dW, db)]
        return C, dX, each

    found, expected = (run(jnp.where(ignored[..., None], fill, X)) for fill in (jnp.nan, 0.0))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("bad", [7, -1, -100, np.iinfo(np.int32).max])
def test_a_gpt2_heads_bad_label(bad):
    """NaN in its example's loss and its token's dX; the other examples don't notice. As the label to ignore it is 0."""
    labels = LABELS.copy()
    labels[1, 2] = bad
    (C, cotangents), (good, expected) = both(X, W, B, labels, chunk=4), both(X, W, B, LABELS, chunk=4)
    others = np.array([0, 2, 3])
    assert np.isnan(C).tolist() == [False, True, False, False]
    assert (C[others] == good[others]).all()
    assert np.isnan(cotangents[0]).all(2).sum() == np.isnan(cotangents[0]).any(2).sum() == 1
    assert np.isnan(cotangents[0][1, 2]).all()
    np.testing.assert_array_equal(cotangents[0][others], expected[0][others])
    assert np.isnan(cotangents[1]).all()
    C, (dX, dW, db, _) = both(X, W, B, labels, chunk=4, ignore_index=bad)
    np.testing.assert_allclose(C[others], good[others], rtol=1e-13)
    assert np.isfinite(C).all()
    assert (dX[1, 2] == 0).all()
    assert np.isfinite(dW).all()
    assert np.isfinite(db).all()


def test_nothing_counts():
    C, cotangents = both(X, W, B, np.full((4, 3), -100), ignore_index=-100, z_loss=0.1, label_smoothing=0.1)
    assert (C == 0).all()
    assert all((cotangent == 0).all() for cotangent in cotangents[:3])


@pytest.mark.parametrize("ignore", [None, 6])
def test_large_logits_in_float32(ignore):
    """A bias of 200 would overflow e^z: neither the row that fills up the last chunk nor an ignored one may meet it."""
    C, cotangents = both(*(a.astype(jnp.float32) for a in (X, W, B + 200)), LABELS, chunk=5, ignore_index=ignore)
    assert np.isfinite(C).all()
    assert all(np.isfinite(cotangent).all() for cotangent in cotangents[:3])


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "ignore_index": 3}], ids=str)
def test_a_common_offset(options):
    """Softmax doesn't see what all logits of a row have in common: float32 gives what its rounded logits give.

    X W is a multiple of ¼ without rounding, so that both ways have the same logits at every offset."""
    x, w = (np.random.default_rng(1).integers(-2, 3, shape).astype(np.float32) / 2 for shape in ((16, 4), (4, 7)))
    labels = jnp.asarray(np.arange(16) % 7)

    @jax.jit
    def two_ways(b):
        C, residuals = rules.linear_cross_entropy_forward(x, w, b, labels, chunk=5, **options)
        chunked = hg.materialize(rules.linear_cross_entropy_backward(residuals, jnp.ones_like(C), chunk=5, **options))
        Z, of_linear = rules.linear_forward(x, w, b)
        whole, of_loss = rules.softmax_cross_entropy_forward(Z, labels, **options)
        dZ, *_ = rules.softmax_cross_entropy_backward(of_loss, jnp.ones_like(whole), **options)
        return (C, *chunked[:3]), (whole, *hg.materialize(rules.linear_backward(of_linear, dZ)))

    for offset in (0, 1e4, -1e4, 1e6, -1e6, 1e8, -1e8, -3e38):
        found, expected = two_ways(jnp.full(7, offset, jnp.float32))
        assert_same(found, expected, rtol=1e-6)
        np.testing.assert_allclose(found[3].sum(), 0, atol=3e-6)
    found, expected = two_ways(jnp.asarray([0, -3e38, 0, -3e38, 0, -3e38, 0], jnp.float32))  # three classes masked
    assert_same(found, expected, rtol=1e-6)
    assert np.isfinite(found[0]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_label_that_is_all_but_sure(dtype):
    """Logits (x, 0, 0) and label 0: the loss is log(1 + 2 / e^x) and its slope −2 / (2 + e^x), down to e^-80."""
    x = np.linspace(-80, 80, 65).astype(dtype)
    C, residuals = rules.linear_cross_entropy_forward(
        jnp.asarray(x)[:, None], jnp.asarray([[1, 0, 0]], dtype), None, jnp.zeros(65, int)
    )
    dX, *_ = rules.linear_cross_entropy_backward(residuals, jnp.ones_like(C))
    x = x.astype(np.float64)
    np.testing.assert_allclose(np.asarray(C, np.float64), np.logaddexp(0, np.log(2) - x), rtol=4 * jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(dX[:, 0], np.float64), -2 / (2 + np.exp(x)), rtol=4 * jnp.finfo(dtype).eps)


def test_bfloat16_logits_are_not_rounded():
    """Closer to the truth than linear and softmax_cross_entropy, which round every logit."""
    small = [a.astype(jnp.bfloat16) for a in (X, W, B)]
    truth, _ = both(*(a.astype(jnp.float64) for a in small), LABELS)
    found, (dX, dW, db, _) = both(*small, LABELS)
    assert {a.dtype for a in (found, dX, dW, db)} == {jnp.dtype(jnp.bfloat16)}
    separate, _ = rules.softmax_cross_entropy_forward(rules.linear_forward(*small)[0], LABELS)
    error, other = (np.abs(np.asarray(C, np.float64) - truth).max() for C in (found, separate))
    assert error <= other
    assert error <= float(jnp.finfo(jnp.bfloat16).eps) * np.abs(truth).max() / 2


def test_an_empty_batch():
    C, residuals = rules.linear_cross_entropy_forward(X[:0], W, B, LABELS[:0])
    dX, dW, db, _ = rules.linear_cross_entropy_backward(residuals, DC[:0])
    assert (C.shape, dX.shape) == ((0,), (0, 3, 5))
    assert (dW.sum() == 0).all()
    assert (db.sum() == 0).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, W[0], B, LABELS), {}, r"W must have shape \(n_in, n\), got float64 \(7,\)"),
        ((X, W.T, B, LABELS), {}, r"X must have shape \(4, 3, 7\) to meet W \(7, 5\), got float64 \(4, 3, 5\)"),
        ((X, W, B[1:], LABELS), {}, r"b must have shape \(7,\) to meet W \(5, 7\), got float64 \(6,\)"),
        ((X, W, B, LABELS[:, 0]), {}, r"the labels Y must have shape \(4, 3\) .*, got int64 \(4,\)"),
        ((X, W, B, LABELS + 0.5), {}, r"the labels Y must be integers, got float64 \(4, 3\)"),
        ((X, W, B, LABELS), {"chunk": 0}, r"chunk must be a positive integer, got 0"),
        ((X, W, B, LABELS), {"chunk": 2.0}, r"chunk must be a positive integer, got 2.0"),
        ((X, W, B, LABELS), {"label_smoothing": 1}, r"label_smoothing must be in \[0, 1\), got 1"),
        ((X, W, B, LABELS), {"ignore_index": 1.0}, r"ignore_index must be an integer of 32 bits or None, got 1.0"),
        ((X, W, B, LABELS), {"z_loss": -1}, r"z_loss must be a positive number, got -1"),
        ((X, W, B, LABELS), {"softcap": 0}, r"softcap must be a positive number, got 0"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(hg.InputError, match=f"^linear_cross_entropy_forward: {message}$"):
        rules.linear_cross_entropy_forward(*arguments, **options)
