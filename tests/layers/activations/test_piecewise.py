"""prelu in a network: gradients, each example's norms, and what its layer refuses."""

import jax
import numpy as np
from helpers import assert_refused
from layers.images.kernels import check_model

import handgrad as hg
from handgrad import layers

X = np.ones((2, 3))


def test_a_network():
    model = hg.chain(
        layers.convolution(3, 3, strides=2),
        hg.prelu(),
        hg.hard_swish(),
        hg.prelu(per_feature=False),
        hg.flatten(),
        hg.linear(2),
        hg.squared_relu(),
    )
    check_model(model, n_out=2)


def test_init_and_refusals():
    for layer, shape in ((hg.prelu(), (3,)), (hg.prelu(per_feature=False), (1,))):
        s = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 3), np.float32)).s
        assert (s.shape, s.dtype, set(np.asarray(s).tolist())) == (shape, np.float32, {0.25})
    assert_refused(
        {
            "prelu: params must be PreluParams, got tuple": lambda: hg.prelu().forward((), X),
            r"prelu: params.s must have shape \(3,\), got float64 \(1,\)": lambda: hg.prelu().forward(
                layers.PreluParams(np.ones(1)), X
            ),
        }
    )
