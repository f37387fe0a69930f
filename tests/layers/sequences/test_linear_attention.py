"""linear_attention as a layer: attention with φ(q) · φ(k) in place of the softmax's exponential."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, both_gradients, drawn

import handgrad as hg
from handgrad import factors
from handgrad.layers import LinearAttentionParams, linear_attention

X, TARGET = (jax.device_put(np.random.default_rng(i).standard_normal((3, 5, 4))) for i in (0, 1))
LAYER = linear_attention(2, head_size=3, eps=0.1)


def by_weights(params, x):
    """Every weight of every pair of tokens, normalized in each row."""
    heads = []
    for h in range(2):
        Q, K = (jax.nn.elu(x @ p.W[:, 3 * h : 3 * h + 3]) + 1 for p in (params.query, params.key))
        P = jnp.tril(Q @ jnp.matrix_transpose(K))
        V = x @ params.value.W[:, 2 * h : 2 * h + 2]
        heads.append(P @ V / (jnp.sum(P, axis=2, keepdims=True) + 0.1))
    return jnp.concatenate(heads, axis=2) @ params.output.W


def test_linear_attention():
    """Against the definition; in a network, against jax.grad of the same objective; every gradient a factor."""
    params = drawn(LAYER, X)
    assert isinstance(params, LinearAttentionParams)
    assert [p.W.shape for p in params] == [(4, 6), (4, 6), (4, 4), (4, 4)]

    @jax.jit
    def run(params):
        y, pullback = jax.vjp(lambda params, x: by_weights(params, x), params, X)
        found, residuals = LAYER.forward(params, X)
        dx, dparams = LAYER.backward(residuals, TARGET)
        assert all(isinstance(p.W, factors.Outer) for p in dparams)
        return (found, (hg.materialize(dparams), dx)), (y, pullback(TARGET))

    assert_same(*run(params))
    model = hg.chain(hg.repeat(hg.residual(LAYER), 2), hg.linear(4))
    assert_same(*both_gradients(model, hg.squared_error())(drawn(model, X, 0.4), X, TARGET, None, None))


def test_refusals():
    key, params = jax.random.key(0), jax.eval_shape(LAYER.init, jax.random.key(0), X)
    calls = {
        "heads must be a positive integer, got 0": lambda: linear_attention(0),
        "value_size must be a positive integer, got 2.0": lambda: linear_attention(2, value_size=2.0),
        "3 must divide the width of x, got 4, or give both sizes": lambda: linear_attention(3).init(key, X),
        r"x must have shape \(batch, tokens, features\), got float64 \(3, 4\)": lambda: LAYER.forward(params, X[:, 0]),
        "params must be LinearAttentionParams, got tuple": lambda: LAYER.forward(tuple(params), X),
    }
    assert_refused({f"linear_attention: {sentence}": call for sentence, call in calls.items()})
