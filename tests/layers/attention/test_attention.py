import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import factors, layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
X = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 8)))
TARGET = jnp.asarray(np.random.default_rng(1).standard_normal((3, 5, 8)))
LLAMA = {"kv_heads": 2, "bias": False, "causal": True, "rotary": 10000.0}
GPT2 = {"causal": True, "dropout": 0.2}
MISTRAL = {"kv_heads": 1, "causal": True, "window": 3, "softcap": 5.0, "head_size": 6, "rotary": 500.0, "tile": 2}


def drawn(layer):
    """Parameters of the layer, none of them zero."""
    rng = np.random.default_rng(2)
    like = jax.eval_shape(layer.init, KEY, X)
    return jax.tree.map(lambda p: jnp.asarray(0.4 * rng.standard_normal(p.shape)), like)


def shapes(params):
    return [(p.W.shape, None if p.b is None else p.b.shape) for p in params]


def test_init():
    params = layers.multi_head_attention(4).init(KEY, X)
    assert isinstance(params, layers.MultiHeadAttentionParams)
    assert shapes(params) == [((8, 8), (8,))] * 4
    assert not np.array_equal(params.query.W, params.key.W)
    assert not any(np.asarray(p.b).any() for p in params)
    x = jax.ShapeDtypeStruct(X.shape, "float32")
    params = jax.eval_shape(layers.multi_head_attention(4, kv_heads=2, bias=False).init, KEY, x)
    assert shapes(params) == [((8, 8), None), ((8, 4), None), ((8, 4), None), ((8, 8), None)]
    assert all(p.W.dtype == "float32" for p in params)
    params = jax.eval_shape(layers.multi_head_attention(2, head_size=3).init, KEY, X)
    assert shapes(params) == [((8, 6), (6,))] * 3 + [((6, 8), (8,))]


@pytest.mark.parametrize("options", [LLAMA, GPT2, MISTRAL], ids=["llama", "gpt2", "mistral in tiles"])
def test_in_a_network(options):
    """Between other layers, under repeat, with and without noise: jax.grad of the same objective."""
    attention = layers.multi_head_attention(4, **options)
    model = hg.chain(hg.repeat(hg.residual(hg.chain(attention, hg.tanh())), 2), hg.linear(8))
    params = drawn(model)
    key = jax.random.key(2, impl="unsafe_rbg") if "dropout" in options else None

    @jax.jit
    def both(params, x):
        by_hand = hg.value_and_grad(model, hg.squared_error(), argnums=(0, 1))(params, x, TARGET, key=key)
        objective = hg.objective(model, hg.squared_error())
        return by_hand, jax.value_and_grad(lambda p, x: objective(p, x, TARGET, key=key), argnums=(0, 1))(params, x)

    by_hand, by_autodiff = both(params, X)
    assert jax.tree.structure(by_hand) == jax.tree.structure(by_autodiff)
    # As one vector: the key's bias has no gradient but rounding.
    assert_same(*(jax.flatten_util.ravel_pytree(both)[0] for both in (by_hand, by_autodiff)))


def test_gradients_are_factors_of_one_input():
    layer = layers.multi_head_attention(2)

    def look(params, x):
        y, residuals = layer.forward(params, x)
        assert y.shape == X.shape
        dx, dparams = layer.backward(residuals, y)
        assert dx.shape == X.shape
        assert all(isinstance(p.W, factors.Outer) and isinstance(p.b, factors.Total) for p in dparams)
        assert dparams.query.W.A is dparams.key.W.A is dparams.value.W.A is x

    jax.eval_shape(look, drawn(layer), X)


def test_heads_are_attentions_side_by_side():
    """From the definition, with jax.nn's softmax."""
    layer = layers.multi_head_attention(2)

    @jax.jit
    def both(params):
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            Q, K, V = (X @ p.W[:, h] + p.b[h][None, None] for p in params[:3])
            heads.append(jax.nn.softmax(Q @ jnp.matrix_transpose(K) / 2) @ V)
        expected = jnp.concatenate(heads, axis=2) @ params.output.W + params.output.b[None, None]
        return layer.forward(params, X)[0], expected

    assert_same(*both(drawn(layer)))


def test_gpt2s_c_attn_is_three_weights_side_by_side():
    """One product with the published (n, 3 n) weight, split, is three products with its thirds."""
    layer = layers.multi_head_attention(2)
    W, b = np.random.default_rng(2).standard_normal((8, 24)), np.arange(24.0)
    pairs = zip(np.split(W, 3, axis=1), np.split(b, 3), strict=True)
    thirds = [hg.LinearParams(*map(jnp.asarray, pair)) for pair in pairs]
    params = drawn(layer)._replace(query=thirds[0], key=thirds[1], value=thirds[2])
    attention = jax.jit(lambda params: layer.forward(params, X)[1].attention)(params)
    found = np.concatenate([A.reshape(3, 5, 8) for A in (attention.Q, attention.K, attention.V)], axis=2)
    assert_same(found, np.asarray(X) @ W + b)


def test_a_checker_finds_its_parts():
    layer = layers.multi_head_attention(4, dropout=0.5, rotary=1e4)
    params = drawn(layer)
    parts = layer.parts(params, X, KEY)
    assert [part.name for part in parts] == ["query", "key", "value", "rotary.0", "rotary.1", "attention", "output"]
    assert [part.key is KEY for part in parts] == [False] * 5 + [True, False]
    last = parts[-1]
    assert_same(last.layer.forward(last.params, last.x)[0], layer.forward(params, X, KEY)[0])


def test_dropout_needs_a_key():
    plain, layer = layers.multi_head_attention(2), layers.multi_head_attention(2, dropout=0.5)
    params = drawn(plain)
    without, silent = jax.jit(lambda params: [f.forward(params, X)[0] for f in (plain, layer)])(params)
    assert (np.asarray(without) == silent).all()
    forward = jax.jit(lambda key: layer.forward(params, X, key)[0])
    one, again, other = (np.asarray(forward(jax.random.key(i, impl="unsafe_rbg"))) for i in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("heads", "options", "sentence"),
    [
        (0, {}, "heads must be a positive integer, got 0"),
        (4, {"kv_heads": 3}, "kv_heads must divide heads, got 3 and 4"),
        (4, {"kv_heads": 0}, "kv_heads must be a positive integer, got 0"),
        (4, {"head_size": 2.0}, "head_size must be a positive integer, got 2.0"),
        (4, {"tile": 0}, "tile must be a positive integer, got 0"),
        (4, {"rotary": -1.0}, "rotary must be a positive number, got -1.0"),
        (4, {"dropout": 1}, r"dropout must be in \[0, 1\), got 1"),
        (4, {"window": 1.5}, "window must be a positive integer, got 1.5"),
    ],
)
def test_options_of_the_wrong_kind(heads, options, sentence):
    with pytest.raises(hg.InputError, match=f"^multi_head_attention: {sentence}$"):
        layers.multi_head_attention(heads, **options)


def test_inputs_and_params_of_the_wrong_kind():
    layer = layers.multi_head_attention(4)
    params = drawn(layer)
    with pytest.raises(hg.InputError, match=r"heads must divide the width of x, got 3 heads for float64 \(3, 5, 8\)$"):
        layers.multi_head_attention(3).init(KEY, X)
    with pytest.raises(hg.InputError, match=r"x must have shape \(batch, tokens, features\), got float64 \(5, 8\)$"):
        layer.forward(params, X[0])
    with pytest.raises(hg.InputError, match=r"x must have a floating-point dtype, got int64"):
        layer.init(KEY, X.astype(int))
    for wrong in ((), tuple(params), None):
        with pytest.raises(
            hg.InputError, match=r"^multi_head_attention: params must be MultiHeadAttentionParams, got "
        ):
            layer.forward(wrong, X)
    with pytest.raises(hg.InputError, match=r"^in layer key: linear: params\.W must have shape \(8, 8\)"):
        layer.forward(drawn(layers.multi_head_attention(4, kv_heads=2)), X)
    with pytest.raises(hg.InputError, match=r"^in layer value: linear: params must be LinearParams, got "):
        layer.forward(params._replace(value=params.value.W), X)
    with pytest.raises(hg.InputError, match=r"^multi_head_attention: residuals must be MultiHeadAttentionResiduals"):
        layer.backward((), X)
    with pytest.raises(hg.InputError, match="with an even n"):
        layers.multi_head_attention(8, rotary=1e4).forward(drawn(layers.multi_head_attention(8)), X)
    with pytest.raises(hg.InputError, match="at least one token"):
        layer.forward(params, X[:, :0])
