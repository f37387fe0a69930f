import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, drawn

import handgrad as hg
from handgrad import factors, rules
from handgrad.layers import MultiHeadAttentionParams, batch_norm, multi_head_attention

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(5)
X, TARGET = (jax.device_put(np.random.default_rng(i).standard_normal((3, 5, 8))) for i in (0, 1))
LLAMA = {"kv_heads": 2, "bias": "qkv", "causal": True, "rotary": 10000.0, "qk_norm": hg.rms_norm(), "sinks": "zero"}
GPT2 = {"causal": True, "dropout": 0.2}
MISTRAL = {
    "kv_heads": 1,
    "causal": True,
    "window": 3,
    "softcap": 5.0,
    "head_size": 6,
    "rotary": {"base": 500.0, "features": 4, "scaling": rules.YarnScaling(2.0, 8)},
    "alibi": True,
    "sinks": "learned",
    "tile": 2,
    "lora_rank": 2,
}


TWO, FOUR = multi_head_attention(2), multi_head_attention(4)


def shapes(params):
    return [(p.W.shape, None if p.b is None else p.b.shape) for p in params]


def test_init():
    params = FOUR.init(KEY, X)
    assert isinstance(params, MultiHeadAttentionParams)
    assert shapes(params[:4]) == [((8, 8), (8,))] * 4
    assert params[4:] == (None, None, None, None)
    assert not np.array_equal(params.query.W, params.key.W)
    assert not any(np.asarray(p.b).any() for p in params[:4])
    x = jax.ShapeDtypeStruct(X.shape, "float32")
    params = jax.eval_shape(multi_head_attention(4, kv_heads=2, bias=False).init, KEY, x)
    assert shapes(params[:4]) == [((8, 8), None), ((8, 4), None), ((8, 4), None), ((8, 8), None)]
    assert all(p.W.dtype == "float32" for p in params[:4])
    params = jax.eval_shape(multi_head_attention(2, head_size=3, bias="qkv").init, KEY, X)
    assert shapes(params[:4]) == [((8, 6), (6,))] * 3 + [((6, 8), None)]
    layer = multi_head_attention(2, kv_heads=1, qk_norm=hg.rms_norm(), sinks="learned", relative=6)
    params = layer.init(KEY, hg.Tokens(X, context=X[:, :2, :6]))
    assert shapes(params[:4]) == [((8, 8), (8,)), ((6, 4), (4,)), ((6, 4), (4,)), ((8, 8), (8,))]
    assert np.array_equal(params.query_norm.gamma, np.ones(4))
    assert np.array_equal(params.key_norm.gamma, np.ones(4))
    assert np.array_equal(params.sinks, np.zeros(2))
    assert np.array_equal(params.relative, np.zeros((6, 2)))


@pytest.mark.parametrize("options", [LLAMA, GPT2, MISTRAL], ids=["llama", "gpt2", "mistral in tiles, with adapters"])
def test_in_a_network(options):
    """Between other layers, under repeat, with and without noise: jax.grad of the same objective."""
    attention = multi_head_attention(4, **options)
    model = hg.chain(hg.repeat(hg.residual(hg.chain(attention, hg.tanh())), 2), hg.linear(8))
    key = jax.random.key(2, impl="unsafe_rbg") if "dropout" in options else None
    by_both = both_gradients(model, hg.squared_error())(drawn(model, X, 0.4), X, TARGET, None, key)
    assert jax.tree.structure(by_both[0]) == jax.tree.structure(by_both[1])
    # As one vector: the key's bias has no gradient but rounding.
    assert_same(*(jax.flatten_util.ravel_pytree(one)[0] for one in by_both))


def test_gradients_are_factors_of_one_input():

    def look(params, x):
        y, residuals = TWO.forward(params, x)
        dx, dparams = TWO.backward(residuals, y)
        assert y.shape == dx.shape == X.shape
        assert all(isinstance(p.W, factors.Outer) and isinstance(p.b, factors.Total) for p in dparams[:4])
        assert dparams.query.W.A is dparams.key.W.A is dparams.value.W.A is x

    jax.eval_shape(look, drawn(TWO, X), X)


def test_many_tokens_are_tiled():
    """From 256 on, on a CPU, if `tile` doesn't say so."""

    def kept(layer, tokens):
        x = jax.ShapeDtypeStruct((1, tokens, 8), "float32")
        params = jax.eval_shape(layer.init, KEY, x)
        return type(jax.eval_shape(layer.forward, params, x)[1].inside.attention)

    assert [kept(TWO, tokens) for tokens in (255, 256)] == [rules.AttentionResiduals, rules.TiledAttentionResiduals]
    assert kept(multi_head_attention(2, tile=8), 9) == rules.TiledAttentionResiduals


def test_heads_are_attentions_side_by_side():
    """From the definition, with jax.nn's softmax."""

    @jax.jit
    def both(params):
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            Q, K, V = (X @ p.W[:, h] + p.b[h][None, None] for p in params[:3])
            heads.append(jax.nn.softmax(Q @ jnp.matrix_transpose(K) / 2) @ V)
        expected = jnp.concatenate(heads, axis=2) @ params.output.W + params.output.b[None, None]
        return TWO.forward(params, X)[0], expected

    assert_same(*both(drawn(TWO, X, 0.4)))


LENGTHS = np.array([4, 0, 2])
TOKENS = hg.Tokens(
    X,
    mask=np.arange(4) < LENGTHS[:, None],
    positions=np.array([[3, 4, 5, 6, 7], [0, 1, 2, 0, 1], [9, 2, 0, 1, 1]]),
    context=RNG.standard_normal((3, 4, 6)),
    bias=RNG.standard_normal((3, 1, 5, 4)),
)


def by_definition(params, x):
    """Two heads, one of keys and values: RMS norms, rotations as complex numbers, ALiBi, sinks, all masked."""
    context = x.X if x.context is None else x.context
    own = np.arange(context.shape[1])[None] if x.context is not None else x.positions
    Q = (x.X @ params.query.W + params.query.b).reshape(3, -1, 2, 4)
    K = (context @ params.key.W + params.key.b).reshape(3, -1, 1, 4)
    V = context @ params.value.W + params.value.b

    def turned(A, gamma, positions):
        A = A / jnp.sqrt(jnp.mean(A**2, axis=-1, keepdims=True) + 1e-6) * gamma
        z = jax.lax.complex(A[..., :2], A[..., 2:]) * jnp.exp(1j * positions[..., None, None] * np.array([1.0, 0.1]))
        return jnp.concatenate([z.real, z.imag], axis=-1)

    Q, K = turned(Q, params.query_norm.gamma, x.positions), turned(K, params.key_norm.gamma, own)
    S = jnp.einsum("bthn,bsn->bhts", Q, K[:, :, 0]) / 2 + x.bias
    tokens, keys = S.shape[2:]
    S = S - np.array([1 / 16, 1 / 256])[:, None, None] * np.abs(np.arange(tokens)[:, None] - np.arange(keys))
    if params.relative is not None:  # eight buckets
        ahead = np.arange(keys) - np.arange(tokens)[:, None]
        S = S + params.relative[np.array([0, 1, 2, 2, 2])[abs(ahead)] + 4 * (ahead > 0)].transpose(2, 0, 1)
    mask = jnp.broadcast_to(x.mask[:, None, None] if x.mask.ndim == 2 else x.mask, S.shape)
    E = jnp.where(mask, jnp.exp(S), 0)
    P = E / (E.sum(-1, keepdims=True) + jnp.exp(params.sinks)[None, :, None, None])
    return jnp.einsum("bhts,bsn->bthn", P, V).reshape(3, tokens, 8) @ params.output.W + params.output.b


def test_tokens():
    """Masks of keys and of scores, positions, a bias and a context (4 tokens of 6 features), and all options of heads:
    values, and every gradient, examples weighted in the parameters'. Of the second example no key may be seen: zeros,
    and no gradient. The second row has a relative position bias, and adds it to the bias that it is given."""
    options = {"kv_heads": 1, "rotary": 100.0, "alibi": True, "qk_norm": hg.rms_norm(), "sinks": "learned"}
    both_layers = [multi_head_attention(2, **options, relative=relative) for relative in (None, 8)]
    mask, bias = RNG.uniform(size=(3, 2, 5, 5)) < 0.6, RNG.standard_normal((1, 2, 1, 5))
    alone = TOKENS._replace(context=None, mask=mask, bias=bias)
    w = np.array([0.5, 2.0, -1.0])
    given = [(x, drawn(layer, x)) for layer, x in zip(both_layers, (TOKENS, alone), strict=True)]

    @jax.jit
    def both(given):
        pairs = []
        for layer, (x, params) in zip(both_layers, given, strict=True):
            y, residuals = layer.forward(params, x)
            dx, dparams = layer.backward(residuals, TARGET)
            floats = [x.X, x.bias] if x.context is None else [x.X, x.bias, x.context]

            def plain(params, X, bias, context=None, x=x):
                return by_definition(params, x._replace(X=X, bias=bias, context=context))

            with jax.numpy_rank_promotion("allow"):
                expected, pullback = jax.vjp(plain, params, *floats)
                found = [dx.X, dx.bias] if x.context is None else [dx.X, dx.bias, dx.context]
                assert (dx.mask, dx.positions, dx.context is None) == (None, None, x.context is None)
                (dparams_of_w, *_), (_, *rest) = pullback(TARGET * w[:, None, None]), pullback(TARGET)
                pairs.append(((y, (hg.materialize(dparams, w), *found)), (expected, (dparams_of_w, *rest))))
        return pairs

    found = both(given)
    for one, other in found:
        assert_same(one, other, rtol=1e-11)
    (y, (_, dX, _, dcontext)), _ = found[0]
    assert_same(y[1], np.broadcast_to(given[0][1].output.b, (5, 8)))
    assert not np.asarray(dX[1]).any()
    assert not np.asarray(dcontext)[np.arange(4) >= LENGTHS[:, None]].any()


def test_a_checker_finds_its_parts():
    layer = multi_head_attention(4, dropout=0.5, rotary=1e4)

    @jax.jit
    def both(params, x):
        parts = layer.parts(params, x, KEY)
        assert [part.name for part in parts] == ["query", "key", "value", "rotary.0", "rotary.1", "attention", "output"]
        assert [part.key is KEY for part in parts] == [False] * 5 + [True, False]
        last = parts[-1]
        return last.layer.forward(last.params, last.x)[0], layer.forward(params, x, KEY)[0]

    assert_same(*both(drawn(layer, X), X))


def test_dropout_needs_a_key():
    layer, params = multi_head_attention(2, dropout=0.5), drawn(TWO, X, 0.4)
    without, silent = jax.jit(lambda params: [f.forward(params, X)[0] for f in (TWO, layer)])(params)
    assert (np.asarray(without) == silent).all()
    forward = jax.jit(lambda key: layer.forward(params, X, key)[0])
    one, again, other = (np.asarray(forward(jax.random.key(i, impl="unsafe_rbg"))) for i in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_refusals():
    options = {
        "heads must be a positive integer, got 0": (0, {}),
        "kv_heads must divide heads, got 3 and 4": (4, {"kv_heads": 3}),
        "kv_heads must be a positive integer, got 0": (4, {"kv_heads": 0}),
        "head_size must be a positive integer, got 2.0": (4, {"head_size": 2.0}),
        "tile must be a positive integer, got 0": (4, {"tile": 0}),
        "rotary must be a positive number, got -1.0": (4, {"rotary": -1.0}),
        r"dropout must be in \[0, 1\), got 1": (4, {"dropout": 1}),
        "window must be a positive integer, got 1.5": (4, {"window": 1.5}),
        "bias must be True, False or 'qkv', got 'q'": (4, {"bias": "q"}),
        "sinks must be None, 'learned' or 'zero', got True": (4, {"sinks": True}),
        r"alibi must be 4 slopes, one for each head, got \(0.5,\)": (4, {"alibi": [0.5]}),
        "relative must be a positive integer, got 0": (4, {"relative": 0}),
        "expected a Layer, .*": (4, {"qk_norm": hg.rms_norm}),
        "qk_norm must not couple the examples of a batch, but .*": (4, {"qk_norm": batch_norm()}),
    }
    calls = {}
    for sentence, (heads, given) in options.items():
        calls[sentence] = lambda heads=heads, given=given: multi_head_attention(heads, **given)
    params, odd = drawn(FOUR, X), multi_head_attention(8, rotary=1e4)
    calls |= {
        r"heads must divide the width of x, got 3 heads for float64 \(3, 5, 8\)": (
            lambda: multi_head_attention(3).init(KEY, X)
        ),
        r"x must have shape \(batch, tokens, features\), got float64 \(5, 8\)": lambda: FOUR.forward(params, X[0]),
        "x must have a floating-point dtype, got int64.*": lambda: FOUR.init(KEY, X.astype(int)),
        "params must be MultiHeadAttentionParams, got tuple": lambda: FOUR.forward(tuple(params), X),
        "params must be MultiHeadAttentionParams, got NoneType": lambda: FOUR.forward(None, X),
        "residuals must be MultiHeadAttentionResiduals.*": lambda: FOUR.backward((), X),
    }
    assert_refused({f"multi_head_attention: {sentence}": call for sentence, call in calls.items()})
    wrong_mask = "x.mask must be booleans of shape .batch, keys. or .batch, heads, tokens, keys., got"
    of_five = "x.mask must have shape .3, 5. .batch, keys., got bool .3, 4."
    told = {
        f"{wrong_mask} int64 .3, 5.": hg.Tokens(X, np.ones((3, 5), int)),
        of_five: hg.Tokens(X, np.ones((3, 4), bool)),
        "x.context must have shape .*": hg.Tokens(X, context=X[0]),
    }
    learned = multi_head_attention(4, sinks="learned")
    assert_refused(
        {
            "multi_head_attention: params.sinks must be parameters, got NoneType": lambda: learned.forward(params, X),
            "multi_head_attention: params.key_norm must be None, got float64 .*": lambda: FOUR.forward(
                params._replace(key_norm=X), X
            ),
        }
    )
    for sentence, x in told.items():
        assert_refused({f"multi_head_attention: {sentence}": lambda x=x: FOUR.forward(params, x)})
    relative = multi_head_attention(4, relative={"buckets": 8, "max_distance": 20})
    wrong_bias = hg.Tokens(X, bias=np.zeros((3, 2, 5, 5)))
    assert_refused(
        {
            "relative_position_buckets: buckets must be even and at least 4, .* got 3 buckets and 128": (
                lambda: multi_head_attention(4, relative=3)
            ),
            "multi_head_attention: x.bias must have the scores' shape .*": lambda: jax.eval_shape(
                relative.forward, jax.eval_shape(relative.init, KEY, X), wrong_bias
            ),
        }
    )
    of_two = drawn(multi_head_attention(4, kv_heads=2), X)
    wrong = params._replace(value=params.value.W)
    assert_refused(
        {
            r"in layer key: linear: params\.W must have shape \(8, 8\).*": lambda: FOUR.forward(of_two, X),
            "in layer value: linear: params must be LinearParams, got .*": lambda: FOUR.forward(wrong, X),
            ".*with an even n.*": lambda: odd.forward(drawn(odd, X), X),
            ".*at least one token.*": lambda: FOUR.forward(params, X[:, :0]),
        }
    )
