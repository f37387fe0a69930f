"""Pools between convolutions of every option, and flatten before a linear layer."""

from layers.images.kernels import check_model

import handgrad as hg
from handgrad import layers


def test_a_convolutional_network():
    model = hg.chain(
        layers.convolution(4, 3, strides=2),
        hg.tanh(),
        layers.max_pool(2, strides=1, residuals="recompute"),
        layers.convolution(4, 2, groups=4, dilation=2, padding=((1, 1), (1, 2))),
        layers.average_pool(2),
        layers.flatten(),
        hg.linear(3),
    )
    check_model(model, n_out=3)
