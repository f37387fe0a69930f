"""gumbel_softmax as a layer: its key's noise, and none without one."""

import jax
import numpy as np
import pytest
from helpers import assert_layers, assert_same

import handgrad as hg
from handgrad import layers

X = np.random.default_rng(0).standard_normal((3, 4))


def test_values_and_gradients():
    """Under the key of assert_layers, and without."""

    def relaxed(x):
        return jax.nn.softmax((x + jax.random.gumbel(jax.random.key(0), x.shape, np.float32)) / 0.5)

    layer = layers.gumbel_softmax(0.5)
    assert_layers({"relaxed": (layer, relaxed)}, X)
    assert_same(jax.jit(lambda x: layer.forward((), x)[0])(X), jax.nn.softmax(X / 0.5))
    with pytest.raises(hg.InputError, match=r"^gumbel_softmax: params must be"):
        layer.forward((X,), X)
