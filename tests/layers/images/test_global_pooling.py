"""Global pools at the end of convolutions; the maximum is in test_transposed_convolution.py."""

from layers.images.kernels import check_model

import handgrad as hg
from handgrad import layers


def test_after_a_stack():
    block = hg.residual(hg.chain(layers.convolution(2, 3), hg.tanh()))
    check_model(hg.chain(hg.repeat(block, 2), layers.global_average_pool()), n_out=2)
