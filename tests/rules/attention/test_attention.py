"""Attention in both forms: they hide what they must hide, keep their digits, and say what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, optimized_jit, passes, together
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
KEY = jax.random.key(7)
Q, K, V = (RNG.standard_normal(shape) for shape in ((2, 7, 4, 3), (2, 7, 2, 3), (2, 7, 2, 2)))
DY = RNG.standard_normal((2, 7, 4, 2))
BIAS = RNG.standard_normal((1, 4, 7, 7))
MASK = RNG.uniform(size=(2, 1, 7, 7)) < 0.7
IDENTITY = np.broadcast_to(np.eye(7)[None, :, None], (2, 7, 2, 7))  # values of which Y is P

both_forms = pytest.mark.parametrize(
    "rule", [rules.attention, rules.tiled_attention.with_options(tile=3)], ids=["plain", "tiled"]
)


def arrays(tree):
    return jax.tree.map(np.asarray, tree)


def test_both_forms_agree_for_every_tile():
    """Values and all gradients, to rounding; seven keys are no multiple of three."""
    options = {"causal": True, "window": 5, "scale": 2.0, "softcap": 1.5}
    tiled = rules.tiled_attention.with_options
    every = rules.attention, tiled(tile=3), tiled(tile=1), rules.tiled_attention
    plain, *found = arrays(together((rule.with_options(**options), DY, (Q, K, V, BIAS, MASK)) for rule in every))
    for one in found:
        assert_same(one, plain, rtol=1e-13)


@both_forms
def test_nothing_leaks_from_the_future(rule):
    """With causal, the first four outputs don't know the keys after them, to the bit, and send them no gradient."""
    run = optimized_jit(functools.partial(passes, rule.with_options(causal=True)))
    later = np.arange(7)[None, :, None, None] >= 4
    Y, _ = arrays(run(DY, Q, K, V))
    other, _ = arrays(run(DY, Q, K + 10 * later, np.where(later, -3 * V, V)))
    assert (Y[:, :4] == other[:, :4]).all()
    assert (Y[:, 4:] != other[:, 4:]).any()
    _, (dQ, dK, dV, *_) = arrays(run(np.where(later, 0, DY), Q, K, V))
    assert not any(d[:, 4:].any() for d in (dQ, dK, dV))
    assert dK[:, :4].all()


@both_forms
def test_causal_and_window_are_masks(rule):
    """Who sees whom, counted on fingers. Three queries and seven keys: query i sees keys 0 … i, as in torch."""
    band = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    five, dY = (Q[:, :5], K[:, :5], V[:, :5]), DY[:, :5]
    both_ways = np.triu(np.tril(np.ones((7, 7), bool), 1), -1)
    causal, three = rule.with_options(causal=True), DY[:, :3]
    calls = [
        (rule, dY, (*five, None, np.array(band, bool)[None, None])),
        (causal.with_options(window=3), dY, five),
        (rule, DY, (Q, K, V, None, both_ways[None, None])),
        (rule.with_options(window=2), DY, (Q, K, V)),
        (causal, three, (Q[:, :3], K, V)),
        (causal, three, (Q[:, :3], K[:, :3], V[:, :3])),
    ]
    masked, by_option, masked_both_ways, by_window, few_queries, few_keys = together(calls)
    assert_same(by_option, masked)
    assert_same(by_window, masked_both_ways)
    assert_same(few_queries[0], few_keys[0])


@both_forms
def test_a_softcap_bounds_the_scores(rule):
    """Scores in the thousands, capped at 2: no probability is more than e⁴ times another; a high cap does nothing.

    One query, scores 22 and 0, capped at 2: tanh 11 is 1 in float32, and its slope, 1e-9, is not 0.
    """
    *far, dY = (np.array(a, np.float32).reshape(1, -1, 1, 1) for a in ([22], [1, 0], [0.5, -1], [3]))
    calls = [
        (rule.with_options(softcap=2.0), np.ones((2, 7, 4, 7)), (1e3 * Q, K, IDENTITY)),
        (rule.with_options(softcap=1e6), DY, (Q, K, V)),
        (rule, DY, (Q, K, V)),
        (rule.with_options(scale=1.0, softcap=2.0), dY, far),
    ]
    (P, _), high, none, (_, (dQ, *_)) = arrays(together(calls))
    assert (P.max(axis=3) / P.min(axis=3) <= np.exp(4) * (1 + 1e-12)).all()
    assert_same(high, none, rtol=1e-10)

    @optimized_jit
    def primal(q):
        return 3 * jnp.array([0.5, -1]) @ jax.nn.softmax(2 * jnp.tanh(q * jnp.array([1.0, 0]) / 2))

    np.testing.assert_allclose(dQ.item(), jax.grad(primal)(22.0), rtol=1e-6)


@both_forms
def test_dropout(rule):
    """With the values' identity, Y is P ∘ R: 0 or P / (1 − p), the same for the same key, P itself without a key."""
    dY = np.ones((2, 7, 4, 7))

    @jax.jit
    def run(key):
        dropping = rule.with_options(dropout=0.25)
        without, silent = (either.forward(Q, K, IDENTITY, key=k)[0] for either, k in ((dropping, None), (rule, key)))
        return without, silent, passes(dropping, dY, Q, K, IDENTITY, None, None, key)

    P, silent, one = arrays(run(KEY))
    assert_same(silent, P)
    assert_same(arrays(run(KEY)[2]), one, rtol=0)
    assert (np.asarray(run(jax.random.key(8))[2][0]) != one[0]).any()
    R = one[0] / P
    assert 0.15 < (R == 0).mean() < 0.35
    np.testing.assert_allclose(R[R != 0], 4 / 3, rtol=1e-12)


@both_forms
def test_a_query_that_sees_nothing(rule):
    """Output 0, no gradient, and no NaN anywhere; the other queries don't notice. By a mask, and by a bias of −∞."""
    hidden = np.zeros((2, 1, 7, 7), bool)
    hidden[0, 0, 2] = hidden[1] = True
    cut = DY.copy()
    cut[0, 2] = cut[1] = 0
    keep = np.array([0, 1, 3, 4, 5, 6])
    by_mask, by_bias = (rule, DY, (Q, K, V, None, ~hidden)), (rule, DY, (Q, K, V, np.where(hidden, -np.inf, 0.0)))
    *found, (seen, (dQ, dK, dV, *_)) = arrays(together([by_mask, by_bias, (rule, cut, (Q, K, V))]))
    for Y, (of_Q, of_K, of_V, *others) in found:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((Y, of_Q, of_K, of_V, others)))
        assert not any(a.any() for a in (Y[0, 2], of_Q[0, 2], Y[1], of_Q[1], of_K[1], of_V[1]))
        assert_same((Y[0, keep], of_Q[0, keep], of_K[0], of_V[0]), (seen[0, keep], dQ[0, keep], dK[0], dV[0]))


@both_forms
def test_nan_in_what_the_mask_hides_altogether_changes_nothing(rule):
    """Keys that no query may see; queries that may see no key."""
    run = jax.jit(functools.partial(passes, rule))
    keys = (np.arange(7) < np.array([[7], [4]]))[:, :, None, None]
    for queries in (np.ones_like(keys), (np.arange(7) < np.array([[5], [3]]))[:, :, None, None]):
        mask = np.swapaxes(keys, 1, 3) & np.swapaxes(queries, 1, 2)

        def of(fill, queries=queries, mask=mask):
            filled = (np.where(own, A, fill) for own, A in ((queries, Q), (keys, K), (keys, V)))
            return arrays(run(np.where(queries, DY, 0), *filled, None, mask))

        found, expected = of(np.nan), of(0.0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
        assert_same(found, expected)


@both_forms
def test_a_nan_stays_with_the_keys_that_its_query_sees(rule):
    """In the bias's gradient: query 2 sees keys 0, 1 and 2."""
    with_nan = Q.copy()
    with_nan[0, 2] = np.nan
    ((_, (_, dK, _, dbias, *_)),) = arrays(together([(rule.with_options(causal=True), DY, (with_nan, K, V, BIAS))]))
    assert np.isnan(dbias).any(axis=(0, 1)).tolist() == [[i == 2 and j <= 2 for j in range(7)] for i in range(7)]
    assert np.isfinite(dK[1]).all()


@both_forms
def test_large_scores_and_mixed_dtypes(rule):
    """Logits of 10⁴: everything finite, in reduced dtypes too.

    The output is of the promoted dtype of Q, K and V, a cotangent of its argument's; a bias promotes nothing.
    """
    dtypes = jnp.float32, jnp.bfloat16, jnp.float16
    given = [[a.astype(dtype) for a in (DY, 100 * Q, 100 * K, 100 * V)] for dtype in dtypes]
    found = together((rule.with_options(scale=1.0), dY, arguments) for dY, *arguments in given)
    for dtype, (Y, cotangents) in zip(dtypes, found, strict=True):
        assert Y.dtype == dtype
        assert all(np.isfinite(np.asarray(a, np.float64)).all() for a in jax.tree.leaves((Y, cotangents)))
    dtypes = "bfloat16", "float32", "bfloat16", "float64"
    mixed = [jax.ShapeDtypeStruct(a.shape, dtype) for a, dtype in zip((Q, K, V, BIAS), dtypes, strict=True)]
    Y, cotangents = jax.eval_shape(functools.partial(passes, rule), DY.astype(np.float32), *mixed)
    assert Y.dtype == "float32"
    assert [c.dtype for c in cotangents[:4]] == list(dtypes)


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


@optimized_jit
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_hidden_by_a_large_finite_bias(dtype):
    """All of a row may be far down: what counts is the differences in it, and they are all there, in both passes and
    both forms."""
    lows = far_down(dtype)
    bias = jnp.asarray(np.concatenate([hidden_by_addition(low) for low in lows]), dtype)
    rng = np.random.default_rng(2)
    integers = (rng.integers(-2, 3, (len(bias), 7, heads, 3)) for heads in (4, 2))
    numbers = (rng.standard_normal((len(bias), 7, heads, 2)) for heads in (2, 4))
    *given, dY = (jnp.asarray(a, dtype) for a in (*integers, *numbers))
    expected = attention_of_rounded_logits(*(np.asarray(a, np.float64) for a in (dY, *given, bias)))
    both = rules.attention, rules.tiled_attention.with_options(tile=3)
    for Y, cotangents in together((rule.with_options(scale=0.25), dY, (*given, bias)) for rule in both):
        for found, truth in zip((Y, *cotangents[:4]), expected, strict=True):
            found, truth = (np.asarray(a, np.float64).reshape(len(bias), -1) for a in (found, truth))
            error = np.abs(found - truth).max(axis=1) / np.abs(truth).max(axis=1)
            assert error.max() < 16 * float(jnp.finfo(dtype).eps), (error.argmax(), error.max())


@both_forms
def test_sinks_far_away(rule):
    """A sink at 10⁴ takes all: Y and every gradient are 0, and its own is 0 as well. At −10⁴, or −∞, it is not there,
    nor a query's that sees nothing; one at 0 is the softmax with 1 + Σ: of zeros, a share of 1 / 8 for each key."""
    mask = np.ones((1, 1, 7, 7), bool)
    mask[..., 2, :] = False
    calls = [(rule, DY, (Q, K, V, None, mask, None, s)) for s in (*(np.full(4, a) for a in (1e4, -1e4, -np.inf)), None)]
    calls.append((rule, np.ones((2, 7, 4, 7)), (0 * Q, K, IDENTITY, None, None, None, np.zeros(4))))
    all_of_it, *far, without, (eighths, _) = arrays(together(calls))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(all_of_it))
    for Y, (*cotangents, dsinks) in far:
        assert_same((Y, tuple(cotangents)), (without[0], without[1][:-1]))
        assert not dsinks.any()
    np.testing.assert_allclose(eighths, 1 / 8, rtol=1e-15)


def test_alibis_published_slopes():
    """1/2, 1/4, … 1/256 for eight heads; for twelve besides these every other one of sixteen heads'."""
    eight = [2.0**-h for h in range(1, 9)]
    assert rules.alibi_slopes(8) == tuple(eight)
    np.testing.assert_allclose(rules.alibi_slopes(12), [*eight, *(2.0 ** -(h + 0.5) for h in range(4))], rtol=1e-15)
    assert rules.alibi_slopes(1) == (2.0**-8,)


def test_jax_nn_agrees():
    """In float32, in which jax.nn.dot_product_attention computes its softmax."""
    dY, *given = (a.astype(np.float32) for a in (Q[::-1], Q, K, K[::-1], BIAS))  # values as wide as its keys
    mask = MASK | np.eye(7, dtype=bool)[None, None]
    mask[..., 0] = True
    every = [
        ({"causal": True, "scale": 0.3}, {"is_causal": True, "scale": 0.3}),
        ({"window": 3}, {"local_window_size": 2}),
        ({"causal": True, "window": 3}, {"is_causal": True, "local_window_size": 2}),
    ]

    @optimized_jit
    def by_jax(dY, *given):
        outcomes = []
        for _, theirs in every:
            peer = functools.partial(jax.nn.dot_product_attention, mask=mask, implementation="xla", **theirs)
            Y, pullback = jax.vjp(lambda Q, K, V, bias, peer=peer: peer(Q, K, V, bias), *given)
            outcomes.append((Y, pullback(dY)))
        return outcomes

    expected = by_jax(dY, *given)
    for rule in (rules.attention, rules.tiled_attention.with_options(tile=3)):
        found = together((rule.with_options(**ours), dY, (*given, mask)) for ours, _ in every)
        for (Y, cotangents), truth in zip(found, expected, strict=True):
            assert_same((Y, cotangents[:4]), truth, rtol=3e-6)


@both_forms
def test_bad_input(rule):
    refuse = functools.partial(refuses, rule)
    three = (np.repeat(a[:, :, :1], 3, 2) for a in (K, V))
    refuse("K must have a number of heads that divides Q's 4…", Q, *three)
    refuse("K must have shape (2, 7, 2, 3) to meet Q…", Q, K[..., :2], V)
    refuse("K must have shape (2, 7, 2, 3) to meet Q…", Q, K[:1], V[:1])
    refuse("V must have shape (2, 7, 2, 2) to meet K…", Q, K, V[:, :6])
    refuse("Q must have shape (batch, tokens, heads, features), got float64 (7, 4, 3)", Q[0], K, V)
    refuse("Q must have at least one token, head and feature, got float64 (2, 0, 4, 3)", Q[:, :0], K, V)
    refuse("K must have at least one token, head and feature…", Q, K[:, :0], V[:, :0])
    refuse("K must have a floating-point dtype…", Q, K.astype(int), V)
    refuse("bias must have the scores' shape (2, 4, 7, 7) …, got float64 (1, 4, 7, 6)", Q, K, V, BIAS[:, :, :, :6])
    for bias in (BIAS[:, :2], BIAS[0, 0]):
        refuse("bias must have the scores' shape (2, 4, 7, 7)…", Q, K, V, bias)
    refuse("bias must have a floating-point dtype…", Q, K, V, BIAS.astype(int))
    refuse("mask must have the scores' shape (2, 4, 7, 7) …, got bool (2, 1, 6, 7)", Q, K, V, None, MASK[:, :, :6])
    refuse("mask must have the scores' shape (2, 4, 7, 7)…", Q, K, V, None, MASK[..., :1])
    refuse("mask must be of booleans, got float64…", Q, K, V, None, MASK * 1.0)
    refuse("mask must be of booleans, got list", Q, K, V, None, [[True]])
    refuse("sinks must have shape (4,) (one for each head), got float64 (2,)", Q, K, V, None, None, None, np.ones(2))
    refuse("sinks must have a floating-point dtype…", Q, K, V, None, None, None, np.ones(4, int))
    refuse("alibi must be 4 slopes, one for each head, got (1.0,)", Q, K, V, alibi=(1.0,))
    refuse("each slope of alibi must be a positive number, got -1", Q, K, V, alibi=(1, 2, 3, -1))
    refuse("key must be a single random key or None, got int", Q, K, V, None, None, 3)
    refuse("key must be a single random key or None…", Q, K, V, None, None, jax.random.split(KEY))
    for option, value, expected in (
        ("scale", 0.0, "a positive number"),
        ("causal", 1, "True or False"),
        ("window", 0, "a positive integer"),
        ("softcap", -1.0, "a positive number"),
        ("dropout", 1.0, "in [0, 1)"),
    ):
        refuse(f"{option} must be {expected}, got {value}", Q, K, V, **{option: value})


def test_a_key_of_the_old_style():
    """The bare numbers of a key, as jax.random.PRNGKey returns them, are welcome too."""
    dropping = functools.partial(rules.attention_forward, dropout=0.5)
    assert jax.eval_shape(dropping, Q, K, V, key=jax.random.key_data(KEY))[0].shape == DY.shape
