"""An eager `init`: one program, and the numbers that every other way of calling it gives."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same

import handgrad as hg

KEY, X = jax.random.key(7), np.zeros((2, 3))
MODEL = hg.chain(
    wide=hg.linear(5, init_b=jax.nn.initializers.uniform()),
    deep=hg.repeat(hg.residual(hg.linear(5)), 2),
    last=hg.linear(2),
)


def test_one_program_of_the_same_numbers(caplog):
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        found = MODEL.init(KEY, X)
    assert sum("Finished XLA compilation" in message for message in caplog.messages) == 1
    assert_same(found, jax.jit(MODEL.init)(KEY, X), rtol=0)
    assert_same(MODEL.init(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype)), found, rtol=0)


def test_all_that_a_key_is_asked():
    """Keys in many shapes, bits of each width, and keys that a layer keeps."""

    def init(key, x):
        one, two = jax.random.split(jax.random.fold_in(key, 3), (2, 2))[1]
        bits = [jax.random.bits(one, (3, 2), dtype) for dtype in ("uint8", "uint16", "uint32", "uint64")]
        many = jax.vmap(lambda key: jax.random.normal(key, (2,), jnp.bfloat16))(jax.random.split(two, 3))
        return *bits, many, two

    layer = hg.Layer(init, lambda params, x, key=None: (x, ()), lambda residuals, dy: (dy, ()))
    (*found, kept), (*expected, kept_too) = layer.init(KEY, X), jax.jit(init)(KEY, X)
    assert_same(found, expected, rtol=0)
    assert kept.dtype == kept_too.dtype == KEY.dtype
    assert (jax.random.key_data(kept) == jax.random.key_data(kept_too)).all()


def test_other_ways_to_call_it():
    """Where shapes alone are asked, with a raw key, and with what is no array."""
    assert jax.eval_shape(MODEL.init, KEY, X)["deep"].W.shape == (2, 5, 5)
    assert jax.eval_shape(jax.vmap(MODEL.init, (0, None)), jax.random.split(KEY, 4), X)["last"].b.shape == (4, 2)
    layer = hg.Layer(lambda key, x: (key, x), None, None)
    raw = jax.random.key_data(KEY)
    assert layer.init(raw, X) == (raw, X)
    assert layer.init(KEY, "x") == (KEY, "x")
