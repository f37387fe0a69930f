"""What comparisons with PyTorch's libraries share: networks in both, with the same parameters, and their layouts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_models import normal_params

import handgrad as hg
from handgrad import layers

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
nn = torch.nn

MARKS = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
BATCH, CLASSES = 4, 3
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, CLASSES, BATCH)


class OfTokens(nn.Module):
    """A function of (batch, tokens, features)."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def of_tokens(function) -> hg.Layer:
    return layers.from_rule(hg.Rule(lambda X: jax.vjp(function, X), lambda pullback, dY: pullback(dY)))


def last(x):
    return x[:, -1]


MODELS = {
    "mlp": (
        hg.mlp((4, 5, CLASSES), hg.sigmoid()),
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, CLASSES)),
        RNG.standard_normal((BATCH, 4)),
    ),
    "tokens": (
        hg.chain(hg.embedding(6, 4), hg.linear(5), hg.layer_norm(), hg.tanh(), of_tokens(last), hg.linear(CLASSES)),
        lambda: nn.Sequential(
            nn.Embedding(6, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), OfTokens(last), nn.Linear(5, CLASSES)
        ),
        np.array([[0, 2, 2, 4], [1, 1, 1, 1], [5, 0, 5, 0], [3, 2, 1, 0]]),
    ),
    "pooled tokens": (
        hg.chain(hg.linear(5), hg.tanh(), of_tokens(lambda x: jnp.mean(x, axis=1)), hg.linear(CLASSES)),
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), OfTokens(lambda x: x.mean(1)), nn.Linear(5, CLASSES)),
        RNG.standard_normal((BATCH, 6, 4)),
    ),
    "line": (
        hg.chain(hg.convolution(3, 2, padding="VALID"), hg.sigmoid(), layers.flatten(), hg.linear(CLASSES)),
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, CLASSES)),
        RNG.standard_normal((BATCH, 5, 2)),
    ),
    "groups": (
        hg.chain(hg.convolution(4, 3, strides=2, padding="VALID", groups=2), hg.tanh(), layers.flatten(), hg.linear(3)),
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, CLASSES)),
        RNG.standard_normal((BATCH, 7, 2)),
    ),
    "images": (
        hg.chain(
            hg.convolution(3, 2, strides=2, padding="VALID"),
            hg.tanh(),
            layers.global_average_pool(),
            hg.linear(CLASSES),
        ),
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES)
        ),
        RNG.standard_normal((BATCH, 6, 4, 2)),
    ),
}
SPACES = {"line": 4, "groups": 3}  # before a flatten: ours is of (space, features), PyTorch's of (features, space)


def as_theirs(name, tree, batch=0):
    """Each parameter's array, with `batch` axes in front, in PyTorch's layout: features in front."""

    def of_leaf(path, a):
        a = np.asarray(a)
        if a.ndim == batch + 1 or path[-1] == jax.tree_util.GetAttrKey("table"):
            return a
        if name in SPACES and a.shape[batch:] == (12, CLASSES):
            parts = a.reshape(*a.shape[:batch], SPACES[name], -1, CLASSES)
            a = parts.swapaxes(batch, batch + 1).reshape(a.shape)
        return np.ascontiguousarray(np.moveaxis(a, (-1, -2), (batch, batch + 1)))

    return jax.tree.leaves(jax.tree_util.tree_map_with_path(of_leaf, tree))


def both(name):
    """Our model, parameters and input; their network with these parameters, its input and labels."""
    model, make, x = MODELS[name]
    params, network = normal_params(model, x), make().double()
    for parameter, array in zip(network.parameters(), as_theirs(name, params), strict=True):
        assert parameter.shape == array.shape
        parameter.data = torch.tensor(array)
    features_first = np.moveaxis(x, -1, 1) if name in (*SPACES, "images") else x
    return model, params, x, network, torch.tensor(np.ascontiguousarray(features_first)), torch.tensor(LABELS)
