"""mlp: the multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from handgrad.checks import InputError
from handgrad.layers import Layer, chain, linear


def mlp(sizes: Sequence[int], activation: Layer, **linear_options: Any) -> Layer:
    """Linear layers with an activation between them; the last one's output is left as it is.

    Args:
      sizes: features of the input, of each hidden layer, and of the output: (784, 30, 10).
      activation: a layer without parameters, `relu()` for one.
      **linear_options: handed to every `linear`: bias, init_W, init_b.
    Raises:
      InputError: fewer than two sizes; at trace time, an x of another width than sizes[0].
    """
    if len(sizes) < 2:
        raise InputError(f"mlp: sizes must name the input and the output at least, got {tuple(sizes)}")
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [linear(n_out, n_in=n_in, **linear_options), activation]
    return chain(*layers[:-1])
