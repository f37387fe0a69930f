"""Attention in both forms: they agree, hide what they must hide, and say what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
KEY = jax.random.key(7)
Q, K, V = (jnp.asarray(RNG.standard_normal(shape)) for shape in ((2, 7, 4, 3), (2, 7, 2, 3), (2, 7, 2, 2)))
DY = jnp.asarray(RNG.standard_normal((2, 7, 4, 2)))
BIAS = jnp.asarray(RNG.standard_normal((1, 4, 7, 7)))
MASK = jnp.asarray(RNG.uniform(size=(2, 1, 7, 7)) < 0.7)

PLAIN = (rules.attention_forward, rules.attention_backward, {})
TILED = (rules.tiled_attention_forward, rules.tiled_attention_backward, {"tile": 3})
both_forms = pytest.mark.parametrize("form", [PLAIN, TILED], ids=["plain", "tiled"])


@functools.cache
def compiled(forward, backward, options):
    def both(dY, *arguments):
        Y, residuals = forward(*arguments, **dict(options))
        return Y, backward(residuals, dY, **dict(options))

    return jax.jit(both)


def run(form, *arguments, dY=DY, **options):
    """Y and the cotangents of Q, K, V and bias."""
    forward, backward, own = form
    return compiled(forward, backward, tuple({**own, **options}.items()))(dY, *arguments)


OPTIONS = {
    "nothing": {},
    "causal": {"causal": True},
    "window": {"window": 2},
    "causal window": {"causal": True, "window": 3, "scale": 2.0},
    "softcap": {"softcap": 1.5},
    "dropout": {"dropout": 0.3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_both_forms_agree(options):
    """Values and all gradients, to rounding; seven keys are no multiple of the tile."""
    arguments = (Q, K, V, BIAS, MASK, KEY)
    assert_same(run(TILED, *arguments, **options), run(PLAIN, *arguments, **options), rtol=1e-13)


@pytest.mark.parametrize("tile", [1, 7, 100])
def test_the_tile_does_not_matter(tile):
    assert_same(run(TILED, Q, K, V, BIAS, tile=tile), run(PLAIN, Q, K, V, BIAS), rtol=1e-13)


@both_forms
def test_nothing_leaks_from_the_future(form):
    """With causal, the first four outputs don't know the keys after them, to the bit, and send them no gradient."""
    Y, _ = run(form, Q, K, V, causal=True)
    other, _ = run(form, Q, K.at[:, 4:].add(10), V.at[:, 4:].multiply(-3), causal=True)
    assert (Y[:, :4] == other[:, :4]).all()
    assert (Y[:, 4:] != other[:, 4:]).any()
    _, (dQ, dK, dV, *_) = run(form, Q, K, V, dY=DY.at[:, 4:].set(0), causal=True)
    assert not dQ[:, 4:].any()
    assert not dK[:, 4:].any()
    assert not dV[:, 4:].any()
    assert dK[:, :4].all()


@both_forms
def test_causal_and_window_are_masks(form):
    """Counted on fingers: who sees whom with causal and a window of 3, seven queries and seven keys."""
    band = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    Q5, K5, V5, dY = Q[:, :5], K[:, :5], V[:, :5], DY[:, :5]
    expected = run(form, Q5, K5, V5, None, jnp.asarray(band, bool)[None, None], dY=dY)
    assert_same(run(form, Q5, K5, V5, dY=dY, causal=True, window=3), expected)


@both_forms
def test_a_window_without_causal_looks_both_ways(form):
    band = np.triu(np.tril(np.ones((7, 7), bool), 1), -1)
    expected = run(form, Q, K, V, None, jnp.asarray(band)[None, None])
    assert_same(run(form, Q, K, V, window=2), expected)


@both_forms
def test_causal_counts_both_from_zero(form):
    """Three queries and seven keys: query i sees keys 0 … i, as in torch and jax.nn."""
    Y, _ = run(form, Q[:, :3], K, V, dY=DY[:, :3], causal=True)
    expected, _ = run(form, Q[:, :3], K[:, :3], V[:, :3], dY=DY[:, :3], causal=True)
    assert_same(Y, expected)


@both_forms
def test_a_group_shares_its_keys_and_values(form):
    """As many key heads as heads, repeated: same output, and a shared head's gradient is the sum of its copies'."""
    Y, (dQ, dK, dV, *_) = run(form, Q, K, V, causal=True)
    expected, (its_dQ, its_dK, its_dV, *_) = run(form, Q, jnp.repeat(K, 2, 2), jnp.repeat(V, 2, 2), causal=True)
    assert_same((Y, dQ), (expected, its_dQ))
    for found, copies in ((dK, its_dK), (dV, its_dV)):
        assert_same(found, copies.reshape(2, 7, 2, 2, -1).sum(axis=3))


@both_forms
@pytest.mark.parametrize("shape", [(1, 4, 7, 7), (2, 1, 7, 7), (2, 4, 1, 7), (1, 1, 1, 7)], ids=str)
def test_a_bias_for_several(form, shape):
    """Its gradient is the whole one's, summed along the axes of 1."""
    bias = jnp.asarray(np.random.default_rng(1).standard_normal(shape))
    whole = run(form, Q, K, V, jnp.broadcast_to(bias, (2, 4, 7, 7)))
    axes = tuple(axis for axis in range(3) if shape[axis] == 1)
    dbias = whole[1][3].sum(axis=axes, keepdims=True)
    assert_same(run(form, Q, K, V, bias), (whole[0], (*whole[1][:3], dbias, None, None)))
    np.testing.assert_allclose(dbias.sum(axis=3), 0, atol=1e-13)  # a constant added to a row changes nothing


@both_forms
def test_a_softcap_bounds_the_scores(form):
    """Scores in the thousands, capped at 2: no probability is more than e⁴ times another; a high cap does nothing."""
    capped = np.asarray(
        run(
            form,
            1e3 * Q,
            K,
            jnp.broadcast_to(jnp.eye(7)[None, :, None], (2, 7, 2, 7)),
            dY=jnp.ones((2, 7, 4, 7)),
            softcap=2.0,
        )[0]
    )
    assert (capped.max(axis=3) / capped.min(axis=3) <= np.exp(4) * (1 + 1e-12)).all()
    assert_same(run(form, Q, K, V, softcap=1e6), run(form, Q, K, V), rtol=1e-10)


@both_forms
def test_a_score_far_beyond_the_softcap(form):
    """One query, scores 22 and 0, capped at 2: tanh 11 is 1 in float32, and its slope, 1e-9, is not 0."""
    Q1, K1, V1, dY = (jnp.asarray(a, jnp.float32).reshape(1, -1, 1, 1) for a in ([22], [1, 0], [0.5, -1], [3]))
    _, (dQ, *_) = run(form, Q1, K1, V1, dY=dY, scale=1.0, softcap=2.0)

    def primal(q):
        return 3 * jnp.array([0.5, -1]) @ jax.nn.softmax(2 * jnp.tanh(q * jnp.array([1.0, 0]) / 2))

    truth = jax.grad(primal)(22.0)
    np.testing.assert_allclose(dQ.item(), truth, rtol=1e-6)


@both_forms
def test_dropout(form):
    """With the values' identity, Y is P ∘ R: 0 or P / (1 − p), the same for the same key, P itself without a key."""
    identity = jnp.broadcast_to(jnp.eye(7)[None, :, None], (2, 7, 2, 7))
    run_it = functools.partial(run, form, Q, K, identity, None, None, dY=jnp.ones((2, 7, 4, 7)))
    (P, _), (one, dropped), (again, dropped_again) = (
        run_it(dropout=0.25),
        run_it(KEY, dropout=0.25),
        run_it(KEY, dropout=0.25),
    )
    assert_same(run_it(KEY)[0], P)
    assert_same((again, dropped_again), (one, dropped), rtol=0)
    assert (run_it(jax.random.key(8), dropout=0.25)[0] != one).any()
    R = one / P
    assert 0.15 < (R == 0).mean() < 0.35
    np.testing.assert_allclose(R[R != 0], 4 / 3, rtol=1e-12)


@both_forms
@pytest.mark.parametrize("hide", ["mask", "bias"])
def test_a_query_that_sees_nothing(form, hide):
    """Output 0, no gradient, and no NaN anywhere; the other queries don't notice."""
    hidden = jnp.zeros((2, 1, 7, 7), bool).at[0, 0, 2].set(True).at[1].set(True)
    given = (None, ~hidden) if hide == "mask" else (jnp.where(hidden, -jnp.inf, 0.0), None)
    Y, cotangents = run(form, Q, K, V, *given)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((Y, cotangents)))
    assert not Y[0, 2].any()
    assert not Y[1].any()
    assert not cotangents[0][0, 2].any()
    assert not any(cotangents[i][1].any() for i in range(3))
    seen, (dQ, dK, dV, *_) = run(form, Q, K, V, dY=DY.at[0, 2].set(0).at[1].set(0))
    keep = np.array([0, 1, 3, 4, 5, 6])
    assert_same((Y[0, keep], cotangents[0][0, keep]), (seen[0, keep], dQ[0, keep]))
    assert_same((cotangents[1][0], cotangents[2][0]), (dK[0], dV[0]))


@both_forms
@pytest.mark.parametrize("of_queries", [False, True])
def test_nan_in_what_the_mask_hides_altogether_changes_nothing(form, of_queries):
    """Keys that no query may see; queries that may see no key."""
    keys, queries = np.arange(7) < np.array([[7], [4]]), np.arange(7) < np.array([[5], [7 - 4 * of_queries]])
    mask = keys[:, None, None, :] & (queries[:, None, :, None] if of_queries else True)
    own_keys, own_queries = keys[:, :, None, None], queries[:, :, None, None] if of_queries else True

    def of(fill):
        filled = (jnp.where(own, A, fill) for own, A in ((own_queries, Q), (own_keys, K), (own_keys, V)))
        return run(form, *filled, None, jnp.asarray(mask), dY=jnp.where(own_queries, DY, 0))

    found, expected = of(jnp.nan), of(0.0)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
    assert_same(found, expected)


@both_forms
def test_a_nan_stays_with_the_keys_that_its_query_sees(form):
    """In the bias's gradient: query 2 sees keys 0, 1 and 2."""
    _, (_, dK, _, dbias, *_) = run(form, Q.at[0, 2].set(jnp.nan), K, V, BIAS, causal=True)
    assert jnp.isnan(dbias).any(axis=(0, 1)).tolist() == [[i == 2 and j <= 2 for j in range(7)] for i in range(7)]
    assert jnp.isfinite(dK[1]).all()


@both_forms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_large_scores(form, dtype):
    """Logits of 10⁴: everything finite, in reduced dtypes too."""
    arrays = ((100 * a).astype(dtype) for a in (Q, K, V))
    Y, cotangents = run(form, *arrays, dY=DY.astype(dtype), scale=1.0)
    assert Y.dtype == dtype
    assert all(c is None or jnp.isfinite(c).all() for c in (Y, *cotangents))


def hidden_by_addition(low):
    """Biases of five examples, (5, 1, 7, 7), that hide keys by adding a finite `low`; some hide a whole row."""
    causal = np.triu(np.full((7, 7), low), 1)
    first_row, left, everything, slopes = (causal.copy() for _ in range(4))
    first_row[0] = low  # a row of which nothing is left
    left[:3], left[:, :3] = low, low  # left padding: rows of padding, and its columns
    everything[:] = low
    slopes += np.maximum(low, -np.abs(np.subtract.outer(np.arange(7), np.arange(7))) / 2.0)
    slopes[:, :2] = low
    mixed = np.where(np.arange(7) == 1, -np.inf, left)
    return np.stack([first_row, left, everything, slopes, mixed])[:, None]


def far_down(dtype):
    """Numbers that are used to hide a key, as far as the dtype has them."""
    lows = np.array([-3e4, -1e4, -1e9, float(jnp.finfo(dtype).min), 3e4])
    return lows[np.abs(lows) <= float(jnp.finfo(dtype).max)]


@jax.jit
def attention_of_rounded_logits(dY, Q, K, V, bias):
    """Value and gradients in float64, of logits that float32 has rounded: at −10⁹ that is to multiples of 64.

    Queries and keys of small integers and a scale of ¼ have scores without rounding, and at −10⁴ they are kept whole.
    """

    def primal(Q, K, V, bias):
        S = jnp.einsum("bthn,bshn->bhts", Q, jnp.repeat(K, 2, 2)) / 4
        Z = S + bias
        rounded = jax.lax.reduce_precision(Z, exponent_bits=8, mantissa_bits=23)
        Z = Z + jax.lax.stop_gradient(jnp.where(jnp.isneginf(Z), 0, rounded - Z))
        E = jnp.exp(Z - jax.lax.stop_gradient(Z.max(axis=-1, keepdims=True)))
        return jnp.einsum("bhts,bshn->bthn", E / E.sum(axis=-1, keepdims=True), jnp.repeat(V, 2, 2))

    Y, pullback = jax.vjp(primal, Q, K, V, bias)
    return Y, *pullback(dY)


@both_forms
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_hidden_by_a_large_finite_bias(form, dtype):
    """All of a row may be far down: what counts is the differences in it, and they are all there, in both passes."""
    lows = far_down(dtype)
    bias = jnp.asarray(np.concatenate([hidden_by_addition(low) for low in lows])).astype(dtype)
    rng = np.random.default_rng(2)
    integers = (rng.integers(-2, 3, (len(bias), 7, heads, 3)) for heads in (4, 2))
    numbers = (rng.standard_normal((len(bias), 7, heads, 2)) for heads in (2, 4))
    *arrays, dY = (jnp.asarray(a).astype(dtype) for a in (*integers, *numbers))
    Y, cotangents = run(form, *arrays, bias, dY=dY, scale=0.25)
    expected = attention_of_rounded_logits(*(a.astype("float64") for a in (dY, *arrays, bias)))
    for found, truth in zip((Y, *cotangents[:4]), expected, strict=True):
        found, truth = (np.asarray(a, np.float64).reshape(len(bias), -1) for a in (found, truth))
        error = np.abs(found - truth).max(axis=1) / np.abs(truth).max(axis=1)
        assert error.max() < 16 * float(jnp.finfo(dtype).eps), (error.argmax(), error.max())


@both_forms
def test_mixed_dtypes(form):
    """The output is of the promoted dtype of Q, K and V, a cotangent of its argument's; a bias promotes nothing."""
    arguments = Q.astype("bfloat16"), K.astype("float32"), V.astype("bfloat16"), BIAS
    Y, cotangents = run(form, *arguments, dY=DY.astype("float32"))
    assert Y.dtype == "float32"
    assert [c.dtype for c in cotangents[:4]] == [a.dtype for a in arguments]


JAX_NN = {
    "causal": ({"causal": True}, {"is_causal": True}),
    "window": ({"window": 3}, {"local_window_size": 2}),
    "causal window": ({"causal": True, "window": 3}, {"is_causal": True, "local_window_size": 2}),
    "scale": ({"scale": 0.3}, {"scale": 0.3}),
}


@pytest.mark.parametrize(("ours", "theirs"), JAX_NN.values(), ids=JAX_NN)
def test_jax_nn_agrees(ours, theirs):
    """In float32, in which jax.nn.dot_product_attention computes its softmax."""
    arrays = tuple(a.astype("float32") for a in (Q, K, K[::-1], BIAS))  # its values have as many features as its keys
    dY = Q[::-1].astype("float32")
    mask = MASK.at[..., 0].set(True) | jnp.eye(7, dtype=bool)[None, None]

    def reference(Q, K, V, bias):
        return jax.nn.dot_product_attention(Q, K, V, bias, mask, implementation="xla", **theirs)

    @jax.jit
    def value_and_gradients(dY, *arrays):
        Y, pullback = jax.vjp(reference, *arrays)
        return Y, pullback(dY)

    expected = value_and_gradients(dY, *arrays)
    for form in (PLAIN, TILED):
        found, cotangents = run(form, *arrays, mask, dY=dY, **ours)
        assert_same((found, cotangents[:4]), expected, rtol=3e-6)


def temporary_bytes(form, tokens):
    forward, backward, own = form

    def both(Q, K, V, dY):
        Y, residuals = forward(Q, K, V, **own)
        return Y, backward(residuals, dY, **own)

    arrays = [jax.ShapeDtypeStruct((1, tokens, 2, 8), jnp.float32)] * 4
    return jax.jit(both).lower(*arrays).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_linearly_in_tiles():
    """Twice the tokens: twice the temporary memory in tiles, four times in the plain form."""
    tiled = (*TILED[:2], {"tile": 32})
    small, large = temporary_bytes(tiled, 256), temporary_bytes(tiled, 512)
    assert large <= 2.05 * small
    assert temporary_bytes(PLAIN, 512) >= 3.5 * temporary_bytes(PLAIN, 256)
    assert large < temporary_bytes(PLAIN, 512) / 8


REFUSED = {
    "heads": (
        (Q, K[:, :, :1].repeat(3, 2), V[:, :, :1].repeat(3, 2)),
        {},
        "K must have a number of heads that divides Q's 4",
    ),
    "features": ((Q, K[..., :2], V), {}, r"K must have shape \(2, 7, 2, 3\) to meet Q"),
    "batch": ((Q, K[:1], V[:1]), {}, r"K must have shape \(2, 7, 2, 3\) to meet Q"),
    "values": ((Q, K, V[:, :6]), {}, r"V must have shape \(2, 7, 2, 2\) to meet K"),
    "rank": ((Q[0], K, V), {}, r"Q must have shape \(batch, tokens, heads, features\), got float64 \(7, 4, 3\)"),
    "no token": ((Q[:, :0], K, V), {}, r"Q must have at least one token, head and feature, got float64 \(2, 0, 4, 3\)"),
    "no key": ((Q, K[:, :0], V[:, :0]), {}, "K must have at least one token, head and feature"),
    "integers": ((Q, K.astype(int), V), {}, "K must have a floating-point dtype"),
    "bias": (
        (Q, K, V, BIAS[:, :, :, :6]),
        {},
        r"bias must have the scores' shape \(2, 4, 7, 7\) .*, got float64 \(1, 4, 7, 6\)",
    ),
    "bias of 2 heads": ((Q, K, V, BIAS[:, :2]), {}, r"bias must have the scores' shape \(2, 4, 7, 7\)"),
    "bias of rank 2": ((Q, K, V, BIAS[0, 0]), {}, r"bias must have the scores' shape \(2, 4, 7, 7\)"),
    "bias of integers": ((Q, K, V, BIAS.astype(int)), {}, "bias must have a floating-point dtype"),
    "mask": (
        (Q, K, V, None, MASK[:, :, :6]),
        {},
        r"mask must have the scores' shape \(2, 4, 7, 7\) .*, got bool \(2, 1, 6, 7\)",
    ),
    "mask without keys": ((Q, K, V, None, MASK[..., :1]), {}, r"mask must have the scores' shape \(2, 4, 7, 7\)"),
    "mask of numbers": ((Q, K, V, None, MASK * 1.0), {}, "mask must be of booleans, got float64"),
    "mask as a list": ((Q, K, V, None, [[True]]), {}, "mask must be of booleans, got list"),
    "key": ((Q, K, V, None, None, 3), {}, "key must be a single random key or None, got int"),
    "keys": ((Q, K, V, None, None, jax.random.split(KEY)), {}, "key must be a single random key or None"),
    "scale": ((Q, K, V), {"scale": 0.0}, "scale must be a positive number, got 0.0"),
    "causal": ((Q, K, V), {"causal": 1}, "causal must be True or False, got 1"),
    "window": ((Q, K, V), {"window": 0}, "window must be a positive integer, got 0"),
    "softcap": ((Q, K, V), {"softcap": -1.0}, "softcap must be a positive number, got -1.0"),
    "dropout": ((Q, K, V), {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
}


@both_forms
@pytest.mark.parametrize(("arguments", "options", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refuses(form, arguments, options, sentence):
    forward, _, own = form
    with pytest.raises(hg.InputError, match=f"^{forward.__name__}: {sentence}"):
        forward(*arguments, **own, **options)


def test_refuses_a_tile_of_nothing():
    with pytest.raises(hg.InputError, match=r"^tiled_attention_forward: tile must be a positive integer, got 0$"):
        rules.tiled_attention_forward(Q, K, V, tile=0)
    _, residuals = rules.tiled_attention_forward(Q, K, V)
    with pytest.raises(hg.InputError, match=r"^tiled_attention_backward: tile must be a positive integer, got 2.0$"):
        rules.tiled_attention_backward(residuals, DY, tile=2.0)


def test_a_key_of_the_old_style():
    """The bare numbers of a key, as jax.random.PRNGKey returns them, are welcome too."""
    Y, _ = jax.eval_shape(
        functools.partial(rules.attention_forward, dropout=0.5), Q, K, V, key=jax.random.key_data(KEY)
    )
    assert Y.shape == DY.shape
