"""Multi-head latent attention: from its definition, in a network, and what it keeps of a token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_passes, drawn

import handgrad as hg
from handgrad import factors
from handgrad.layers import MultiHeadLatentAttentionParams, multi_head_latent_attention

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5, 8))
POSITIONS = np.array([[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]])
MASK = np.array([[False, False, True, True, True], [True] * 5])
SIZES = {"kv_rank": 5, "head_size": 4, "rotary_size": 2, "value_size": 3, "causal": True}
LAYER = multi_head_latent_attention(2, query_rank=6, rotary={"base": 50.0, "form": "interleaved"}, **SIZES)


def by_definition(params, X):
    """Head by head, the scores as a sum of two products: of what doesn't rotate and of what does."""

    def norm(A, gamma):
        return A / jnp.sqrt(jnp.mean(A**2, axis=-1, keepdims=True) + 1e-6) * jnp.broadcast_to(gamma, A.shape)

    def turned(A):
        z = jax.lax.complex(A[..., 0], A[..., 1]) * jnp.exp(1j * jnp.asarray(POSITIONS))
        return jnp.stack([z.real, z.imag], axis=-1)

    queries = norm(X @ params.query["down"].W, params.query["norm"].gamma) @ params.query["up"].W
    down = X @ params.down.W
    latent, k = norm(down[..., :5], params.norm.gamma), turned(down[..., 5:])
    outputs = []
    for h in range(2):
        q, r = jnp.split(queries[..., 6 * h : 6 * h + 6], [4], axis=-1)
        keys, values = jnp.split(latent @ params.up.W[:, 7 * h : 7 * h + 7], [4], axis=-1)
        S = (q @ keys.mT + turned(r) @ k.mT) / np.sqrt(6)
        seen = jnp.asarray(MASK[:, None] & np.tril(np.ones((1, 5, 5), bool)))
        outputs.append(jax.nn.softmax(S, axis=-1, where=seen) @ values)
    return jnp.concatenate(outputs, axis=-1) @ params.output.W


def test_from_its_definition():
    """Padding first in one example: its queries see nothing."""
    params = drawn(LAYER, X)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [
        *((8, 6), (6,), (6, 12)),  # a dict's in the order of its names
        *((8, 7), (5,), (5, 14), (6, 8)),
    ]
    dY = RNG.standard_normal((2, 5, 8))
    told = hg.layers.told(LAYER, MASK[:, None, None, :], POSITIONS)
    found, expected = both_passes(told, by_definition)(params, X, dY)
    assert_same(found, expected, rtol=1e-11)
    assert not np.asarray(found[0])[~MASK].any()


def test_in_tiles_under_repeat():
    """Without a query rank; in tiles, recomputed, told positions that are those of the sequence: nothing changes."""
    plain = multi_head_latent_attention(2, **SIZES)
    in_tiles = hg.layers.told(
        multi_head_latent_attention(2, tile=2, **SIZES), positions=np.arange(10).reshape(2, 5) % 5
    )
    params = drawn(hg.repeat(plain, 2), X, 0.5)

    def gradients(layer, **options):
        model = hg.chain(hg.repeat(hg.residual(layer), 2, **options))
        return hg.value_and_grad(model, hg.squared_error())((params,), X, X[::-1])

    both = jax.jit(lambda: (gradients(plain), gradients(in_tiles, residuals="recompute")))()
    assert_same(*both, rtol=1e-12)


def test_what_it_keeps_and_its_factors():
    def look(params, x):
        y, residuals = LAYER.forward(params, x)
        dx, dparams = LAYER.backward(residuals, y)
        assert y.shape == dx.shape == X.shape
        assert isinstance(dparams, MultiHeadLatentAttentionParams)
        assert isinstance(dparams.norm.gamma, factors.Hadamard)
        assert all(isinstance(p.W, factors.Outer) for p in (dparams.down, dparams.up, dparams.output))
        assert dparams.query["down"].W.A is dparams.down.W.A is x

    jax.eval_shape(look, drawn(LAYER, X), X)


def test_refusals():
    where = "multi_head_latent_attention"
    assert_refused(
        {
            f"{where}: kv_rank must be a positive integer, got 0": lambda: multi_head_latent_attention(
                2, kv_rank=0, head_size=4, rotary_size=2
            ),
            f"{where}: x must have no context and no bias": lambda: LAYER.init(
                jax.random.key(0), hg.Tokens(X, context=X)
            ),
            f"{where}: x must have shape .*": lambda: LAYER.init(jax.random.key(0), X[0]),
        }
    )
    odd = multi_head_latent_attention(2, kv_rank=2, head_size=2, rotary_size=3)
    params = drawn(odd, X)
    with pytest.raises(hg.InputError, match="with an even n"):
        jax.eval_shape(odd.forward, params, X)
