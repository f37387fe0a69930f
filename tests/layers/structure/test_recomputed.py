import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, drawn, noise

import handgrad as hg

KEY, LOSS, N = jax.random.key(0), hg.l2_loss(), 3
X = np.random.default_rng(0).standard_normal((4, 6))
BLOCK = hg.residual(hg.chain(hg.linear(6), noise(), hg.tanh()))


def test_it_is_the_layer():
    """Under a chain and under `repeat`, alone and inside of one another, with the same noise."""
    saved = hg.chain(hg.repeat(BLOCK, N), BLOCK)
    again = hg.recomputed(hg.chain(hg.repeat(BLOCK, N, residuals="recompute"), hg.recomputed(BLOCK)))

    @jax.jit
    def run(params):
        arguments = params, X, X, None, KEY
        found = hg.value_and_grad(again, LOSS, argnums=(0, 1))(*arguments)
        expected = jax.value_and_grad(hg.objective(saved, LOSS), argnums=(0, 1))(*arguments)
        norms = [hg.sq_norms(hg.value_and_factors(model, LOSS)(params, X, X, KEY)[1]) for model in (again, saved)]
        return (found, norms[0]), (expected, norms[1])

    assert_same(*run(drawn(saved, X)))


def test_it_keeps_references():
    layer = hg.recomputed(BLOCK)
    params, x = drawn(layer, X), jnp.asarray(X)
    _, residuals = layer.forward(params, x, KEY)
    assert all(a is b for a, b in zip(jax.tree.leaves(residuals), jax.tree.leaves((params, x, KEY)), strict=True))


def test_residuals_of_one_layer_at_a_time():
    """XLA doesn't merge the two forward passes, neither in the program of a chain nor in loops."""
    wide, x = 1024, jax.ShapeDtypeStruct((64, 8), np.float32)
    block = hg.residual(hg.chain(hg.linear(wide), hg.gelu(), hg.dropout(0.5), hg.linear(8)))

    def temporary(model):
        params = jax.eval_shape(model.init, KEY, x)
        compiled = jax.jit(hg.grad(model, LOSS)).lower(params, x, x, None, jax.random.key(0, impl="unsafe_rbg"))
        return compiled.compile().memory_analysis().temp_size_in_bytes

    few = 8 * 64 * wide * 4
    assert temporary(hg.chain(*[hg.recomputed(block)] * 6)) < few < temporary(hg.chain(*[block] * 6))
    assert temporary(hg.repeat(block, 6, residuals="recompute")) < few


def test_refusals():
    layer = hg.recomputed(BLOCK)
    assert_refused(
        {
            "recomputed: expected a Layer, as .*, got function": lambda: hg.recomputed(hg.relu),
            "recomputed: residuals must be RecomputedResiduals, got tuple": lambda: layer.backward((), X),
            "repeat: residuals must be 'save' or 'recompute', got 'mask'": lambda: hg.repeat(
                BLOCK, 2, residuals="mask"
            ),
        }
    )
