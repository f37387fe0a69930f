"""Random networks for the cross-check."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree

from handgrad import layers
from handgrad.layers import Layer, Loss, chain, linear, repeat, residual

ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "identity": layers.identity,
    "sigmoid": layers.sigmoid,
    "tanh": layers.tanh,
    "relu": layers.relu,
    "leaky_relu": layers.leaky_relu,
    "elu": layers.elu,
    "selu": layers.selu,
    "gelu": layers.gelu,
    "gelu_tanh": lambda: layers.gelu(approximate=True),
    "silu": layers.silu,
    "softplus": layers.softplus,
    "mish": layers.mish,
    "softmax": layers.softmax,
    "log_softmax": layers.log_softmax,
}
REGRESSION_LOSSES: dict[str, Callable[[], Loss]] = {
    "squared_error": layers.squared_error,
    "l2_loss": layers.l2_loss,
    "absolute_error": layers.absolute_error,
    "huber_loss": layers.huber_loss,
}
PROBABILITY_LOSSES: dict[str, Callable[[], Loss]] = {
    "sigmoid_cross_entropy": layers.sigmoid_cross_entropy,
    "binary_cross_entropy": layers.binary_cross_entropy,
    "softmax_cross_entropy": layers.softmax_cross_entropy,
    "softmax_cross_entropy_smoothed": lambda: layers.softmax_cross_entropy(label_smoothing=0.1),
}


@dataclass(frozen=True)
class RandomNetwork:
    """A network and its data.

    Attributes:
      name: its layers and its loss in words, for a report.
      model, loss: as `value_and_grad` takes them.
      arguments: (params, x, target, weights), NumPy arrays; weights may be None.
    """

    name: str
    model: Layer
    loss: Loss
    arguments: tuple[PyTree[np.ndarray], np.ndarray, np.ndarray, np.ndarray | None]


def random_network(seed: int, dtype: DTypeLike = np.float64, max_depth: int = 8, draw: int = 0) -> RandomNetwork:
    """A network of depth 1 to `max_depth`, widths 1 to 64, batch 1 to 33, any activation and loss, residual and repeat.

    The structure is a function of the seed alone, every number of seed and draw; another dtype rounds the same numbers.

    Args:
      seed: a non-negative integer.
      dtype: of params, x, weights and of targets that are not labels.
      max_depth: of the linear layers before the last one.
      draw: a non-negative integer; another one gives other parameters and data for the same structure.
    """
    rng, numbers = np.random.default_rng(seed), np.random.default_rng((seed, draw))
    batch, width = int(rng.integers(1, 34)), int(rng.integers(1, 65))
    middle = (int(rng.integers(1, 4)),) if rng.random() < 0.25 else ()
    x = numbers.standard_normal((batch, *middle, width)).astype(dtype)

    names, blocks, depth = [], [], int(rng.integers(1, max_depth + 1))
    while depth > 0:
        name, block, used, width = _random_block(rng, width, depth)
        names.append(name)
        blocks.append(block)
        depth -= used
    names_of_end, end, loss, target = _random_end(rng, numbers, (batch, *middle))
    model = chain(body=chain(*blocks), head=chain(*end)) if rng.random() < 0.25 else chain(*blocks, *end)
    weighted = rng.random() < 0.5

    abstract = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(x.shape, dtype))
    params = jax.tree.map(lambda leaf: _random_parameter(numbers, leaf.shape).astype(dtype), abstract)
    weights = numbers.uniform(0, 2, batch).astype(dtype) if weighted else None
    if np.issubdtype(target.dtype, np.floating):
        target = target.astype(dtype)
    name = f"{' > '.join([*names, *names_of_end])} on {x.shape}{' weighted' if weighted else ''}"
    return RandomNetwork(name, model, loss, (params, x, target, weights))


def _random_block(rng: np.random.Generator, width: int, depth: int) -> tuple[str, Layer, int, int]:
    """A linear layer with its activation, alone, residual or repeated: (name, layer, depth, width)."""
    kind = rng.choice(["plain", "residual", "repeat"], p=[0.6, 0.2, 0.2])
    n_out = int(rng.integers(1, 65)) if kind == "plain" else width
    # The softmax of a single number is constant: a gradient of zeros, which proves nothing.
    choices = [a for a in ACTIVATIONS if n_out > 1 or "softmax" not in a]
    activation = str(rng.choice(choices))
    layer = chain(_linear(n_out, bias=bool(rng.random() < 0.8)), ACTIVATIONS[activation]())
    name = f"linear {n_out} {activation}"
    if kind == "plain":
        return name, layer, 1, n_out
    if kind == "residual":
        return f"residual({name})", residual(layer), 1, n_out
    n = int(rng.integers(1, depth + 1))
    return f"repeat({name}, {n})", repeat(residual(layer), n), n, n_out


def _random_end(
    rng: np.random.Generator, numbers: np.random.Generator, leading: tuple[int, ...]
) -> tuple[list[str], list[Layer], Loss, np.ndarray]:
    """The last layers, and a loss with a target that suits it: (names, layers, loss, target)."""
    n_out = int(rng.integers(2, 17))
    shape = (*leading, n_out)
    target: np.ndarray
    names, end = [f"linear {n_out}"], [_linear(n_out)]
    kind = str(rng.choice([*REGRESSION_LOSSES, *PROBABILITY_LOSSES]))
    loss = {**REGRESSION_LOSSES, **PROBABILITY_LOSSES}[kind]()
    if kind in REGRESSION_LOSSES:
        if rng.random() < 0.2:
            names, end, shape = [*names, "logsumexp"], [*end, layers.logsumexp()], leading
        target = numbers.standard_normal(shape)
    elif kind.startswith("softmax"):
        labels = rng.random() < 0.5
        target = numbers.integers(0, n_out, leading) if labels else numbers.dirichlet(np.ones(n_out), leading)
    else:
        target = numbers.uniform(0, 1, shape)
        if kind == "binary_cross_entropy":
            # tanh keeps the probabilities off 0 and 1, where this loss is infinite.
            names, end = [*names, "tanh", "sigmoid"], [*end, layers.tanh(), layers.sigmoid()]
    return [*names, kind], end, loss, target


def _linear(n_out: int, bias: bool = True) -> Layer:
    """`linear` with the initializer that traces fastest: only the shapes of its params are used."""
    return linear(n_out, bias=bias, init_W=jax.nn.initializers.zeros)


def _random_parameter(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of the size that initializers give: a variance of 1 / n_in for a matrix."""
    return rng.standard_normal(shape) / np.sqrt(shape[-2] if len(shape) > 1 else 4)
