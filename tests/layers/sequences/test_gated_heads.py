"""retention, gated_linear_attention and rwkv_time_mixing: by their papers' equations, a token at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, drawn

import handgrad as hg
from handgrad import factors, layers
from handgrad.factors import is_factor

X, DY = (jax.device_put(np.random.default_rng(i).standard_normal((2, 5, 8))) for i in (0, 1))
KEY, HEADS, N, N_V = jax.random.key(0), 2, 4, 3


def heads_of(A):
    return A.reshape(*A.shape[:2], HEADS, A.shape[2] // HEADS)


def recurrent(Q, K, V, a, u=None):
    """y_t of every head, all arrays (batch, tokens, heads, size)."""
    S, Y = jnp.zeros((2, HEADS, N, N_V)), []
    for t in range(5):
        new = K[:, t, :, :, None] * V[:, t, :, None, :]
        before, S = S, a[:, t, :, :, None] * S + new
        read = S if u is None else before + u[None, :, :, None] * new
        Y.append(jnp.sum(Q[:, t, :, :, None] * read, axis=2))
    return jnp.stack(Y, axis=1)


def rotated(A):
    """Each pair (i, i + 2) of 4 features as a complex number, turned by t or t / 10."""
    turns = jnp.exp(1j * jnp.arange(5)[:, None] * jnp.array([1.0, 0.1])[None])[None, :, None]
    Z = (A[..., :2] + 1j * A[..., 2:]) * turns
    return jnp.concatenate([Z.real, Z.imag], axis=3)


def standardized(Y, eps):
    return (Y - jnp.mean(Y, 3, keepdims=True)) / jnp.sqrt(jnp.var(Y, 3, keepdims=True) + eps)


def gated(G, Y, p, gamma=None, beta=None):
    A = Y.reshape(2, 5, HEADS * N_V)
    A = A if gamma is None else A * gamma[None, None]
    A = A if beta is None else A + beta[None, None]
    return (jax.nn.silu(G) * A) @ p.output.W


def retention(p, x):
    Q, K, V, G = (x @ p[i].W for i in range(4))
    Q, K, V = rotated(heads_of(Q)), rotated(heads_of(K)), heads_of(V)
    gamma = jnp.array([1 - 1 / 32, 1 - 1 / 64])[None, None, :, None]
    Y = recurrent(Q, K, V, jnp.broadcast_to(gamma, Q.shape)) / 2
    return gated(G, standardized(Y, 1e-5), p)


def gated_linear_attention(p, x):
    Q, K, V = (heads_of(x @ of.W) for of in (p.query, p.key, p.value))
    logits = x @ p.decay["down"].W @ p.decay["up"].W + p.decay["up"].b[None, None]
    Y = recurrent(Q, K, V, heads_of(jax.nn.sigmoid(logits)) ** (1 / 8)) / 2
    Y = Y / jnp.sqrt(jnp.mean(Y**2, 3, keepdims=True) + 1e-6)
    return gated(x @ p.gate.W, Y, p, p.mixer.gamma)


def rwkv_time_mixing(p, x):
    before = jnp.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]

    def shifted(of):
        return x + of["shift"].mu[None, None] * (before - x)

    R, K, V, G = (shifted(of) @ of["linear"].W for of in (p.receptance, p.key, p.value, p.gate))
    logits = jnp.tanh(shifted(p.decay) @ p.decay["down"].W) @ p.decay["up"].W + p.decay["up"].b[None, None]
    a = jnp.exp(-jnp.exp(heads_of(logits)))
    Y = recurrent(heads_of(R), heads_of(K), heads_of(V), a, p.mixer.bonus)
    return gated(G, standardized(Y, 64e-5), p, p.mixer.gamma, p.mixer.beta)


SIZES = {"head_size": N, "value_size": N_V}
LAYERS = {
    retention: layers.retention(HEADS, rotary=100.0, chunk=2, **SIZES),
    gated_linear_attention: layers.gated_linear_attention(HEADS, rank=2, temperature=8.0, **SIZES),
    rwkv_time_mixing: layers.rwkv_time_mixing(HEADS, rank=2, chunk=4, **SIZES),
}


@pytest.mark.parametrize("reference", LAYERS)
def test_by_its_equations(reference):
    """y, the cotangents of x and of every parameter, and each example's norm from the factors."""
    layer = LAYERS[reference]

    @jax.jit
    def run(params, x):
        y, residuals = layer.forward(params, x)
        dx, dparams = layer.backward(residuals, DY)
        kinds = {type(f) for f in jax.tree.leaves(dparams, is_leaf=is_factor)}
        assert kinds <= {factors.Outer, factors.Total, factors.Hadamard, factors.PerExample}
        expected, pullback = jax.vjp(reference, params, x)
        alone = jax.vmap(lambda x, dy: jax.vjp(lambda p: reference(p, jnp.stack([x, x])), params)[1](dy)[0])
        of_each = alone(x, jnp.stack([jnp.stack([dy, jnp.zeros_like(dy)]) for dy in DY]))
        norms = sum(jnp.sum(g.reshape(2, -1) ** 2, axis=1) for g in jax.tree.leaves(of_each))
        return (y, (hg.materialize(dparams), dx), hg.sq_norms(dparams)), (expected, pullback(DY), norms)

    assert_same(*run(drawn(layer, X, 0.5), X))


def test_init():
    """Sizes of heads from the width; decays from slow to fast."""
    shapes = [
        jax.tree.map(lambda p: p.shape, jax.eval_shape(layer.init, KEY, X))
        for layer in (layers.retention(2), layers.gated_linear_attention(2), layers.rwkv_time_mixing(2, rank=3))
    ]
    assert [p.W for p in shapes[0]] == [(8, 8)] * 5
    assert [p.W for p in (shapes[1].query, shapes[1].value, shapes[1].decay["up"])] == [(8, 4), (8, 8), (16, 4)]
    assert shapes[1].mixer == (((8,)), None, None)
    assert shapes[2].mixer == ((8,), (8,), (2, 4))
    bias = layers.rwkv_time_mixing(2, rank=3).init(KEY, X).decay["up"].b
    assert (bias[0], bias[-1]) == (-6, -1)


def test_refusals():
    gla = layers.gated_linear_attention
    of_width = gla(3).init
    calls = {
        "gated_linear_attention: 6 must divide the width of x, got 8, or give both sizes": lambda: of_width(KEY, X),
        "gated_linear_attention: rank must be a positive integer, got 0": lambda: gla(2, rank=0),
        "gated_linear_attention: temperature must be a positive number, got 0": lambda: gla(2, temperature=0),
        "retention: heads must be a positive integer, got 0": lambda: layers.retention(0),
        "rwkv_time_mixing: rank must be a positive integer, got 0": lambda: layers.rwkv_time_mixing(2, rank=0),
    }
    assert_refused(calls)
