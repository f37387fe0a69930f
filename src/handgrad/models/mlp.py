"""mlp: the multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from jax.nn.initializers import Initializer, lecun_normal, zeros

from handgrad.checks import InputError
from handgrad.layers import Layer, chain, linear


def mlp(
    sizes: Sequence[int],
    activation: Layer,
    *,
    bias: bool = True,
    init_W: Initializer = lecun_normal(),
    init_b: Initializer = zeros,
) -> Layer:
    """Linear layers with an activation between them, none after the last.

    Args:
      sizes: features of the input, of each hidden layer, and of the output: (784, 30, 10).
      activation: a layer without parameters, as `relu()`.
      bias, init_W, init_b: as `linear`.
    Raises:
      InputError: fewer than two sizes; at trace time, an x of another width than sizes[0].
    """
    if len(sizes) < 2:
        raise InputError(f"mlp: sizes must name the input and the output at least, got {tuple(sizes)}")
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [linear(n_out, n_in=n_in, bias=bias, init_W=init_W, init_b=init_b), activation]
    return chain(*layers[:-1])
