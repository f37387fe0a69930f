"""linear_recurrence as a layer: one learned decay a feature."""

import jax
import jax.numpy as jnp
import numpy as np
from sequence_models import KEY, X, assert_gradients

import handgrad as hg
from handgrad.layers import linear_recurrence


def test_linear_recurrence():
    models = [hg.chain(hg.linear(3), linear_recurrence(reverse=reverse), hg.linear(2)) for reverse in (False, True)]
    assert_gradients(*((model, X, np.ones((3, 4, 2))) for model in models))
    params = jax.eval_shape(linear_recurrence().init, KEY, jax.ShapeDtypeStruct(X.shape, jnp.float32))
    assert (params.decay.shape, params.decay.dtype) == ((2,), jnp.float32)
