import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients, drawn

import handgrad as hg
from handgrad import factors, rules
from handgrad.layers import MultiHeadAttentionParams, multi_head_attention

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
X, TARGET = (jnp.asarray(np.random.default_rng(i).standard_normal((3, 5, 8))) for i in (0, 1))
LLAMA = {"kv_heads": 2, "bias": False, "causal": True, "rotary": 10000.0}
GPT2 = {"causal": True, "dropout": 0.2}
MISTRAL = {
    "kv_heads": 1,
    "causal": True,
    "window": 3,
    "softcap": 5.0,
    "head_size": 6,
    "rotary": 500.0,
    "tile": 2,
    "lora_rank": 2,
}


TWO, FOUR = multi_head_attention(2), multi_head_attention(4)


def shapes(params):
    return [(p.W.shape, None if p.b is None else p.b.shape) for p in params]


def test_init():
    params = FOUR.init(KEY, X)
    assert isinstance(params, MultiHeadAttentionParams)
    assert shapes(params) == [((8, 8), (8,))] * 4
    assert not np.array_equal(params.query.W, params.key.W)
    assert not any(np.asarray(p.b).any() for p in params)
    x = jax.ShapeDtypeStruct(X.shape, "float32")
    params = jax.eval_shape(multi_head_attention(4, kv_heads=2, bias=False).init, KEY, x)
    assert shapes(params) == [((8, 8), None), ((8, 4), None), ((8, 4), None), ((8, 8), None)]
    assert all(p.W.dtype == "float32" for p in params)
    params = jax.eval_shape(multi_head_attention(2, head_size=3).init, KEY, X)
    assert shapes(params) == [((8, 6), (6,))] * 3 + [((6, 8), (8,))]


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
        assert all(isinstance(p.W, factors.Outer) and isinstance(p.b, factors.Total) for p in dparams)
        assert dparams.query.W.A is dparams.key.W.A is dparams.value.W.A is x

    jax.eval_shape(look, drawn(TWO, X), X)


def test_many_tokens_are_tiled():
    """From 256 on, on a CPU, if `tile` doesn't say so."""

    def kept(layer, tokens):
        x = jax.ShapeDtypeStruct((1, tokens, 8), "float32")
        params = jax.eval_shape(layer.init, KEY, x)
        return type(jax.eval_shape(layer.forward, params, x)[1].attention)

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


def test_a_checker_finds_its_parts():
    layer = multi_head_attention(4, dropout=0.5, rotary=1e4)
    params = drawn(layer, X)
    parts = layer.parts(params, X, KEY)
    assert [part.name for part in parts] == ["query", "key", "value", "rotary.0", "rotary.1", "attention", "output"]
    assert [part.key is KEY for part in parts] == [False] * 5 + [True, False]
    last = parts[-1]
    assert_same(last.layer.forward(last.params, last.x)[0], layer.forward(params, X, KEY)[0])


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
