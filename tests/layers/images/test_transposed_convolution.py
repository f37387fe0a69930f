"""transposed_convolution as a layer: parameters, and a chain of it."""

from layers.images import kernels

import handgrad as hg
from handgrad import layers


def test_parameters():
    kernels.check_init(layers.transposed_convolution(6, 3, groups=2), (3, 3, 3, 2), "bfloat16")
    kernels.check_lecun_normal(layers.transposed_convolution(60, 3), seen=9 * 40)
    kernels.check_without_bias(layers.transposed_convolution)


def test_bad_input():
    kernels.check_refusals(layers.transposed_convolution)


def test_a_chain():
    up = layers.transposed_convolution(2, 3, strides=2)
    kernels.check_model(hg.chain(up, hg.tanh(), layers.global_max_pool(), hg.linear(2)), n_out=2)
