"""flatten as a layer; before a linear layer it is in test_pooling.py."""

from helpers import assert_layers
from layers.images.kernels import X

from handgrad import layers


def test_value_and_gradient():
    assert_layers({"flatten": (layers.flatten(), lambda x: x.reshape(3, 72))}, X)
