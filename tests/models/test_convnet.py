"""LeNet-5 and the residual network: shapes, names, and gradients against jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, both_gradients

import handgrad as hg
from handgrad.models.convnet import Lenet5Config, ResnetConfig, lenet5, resnet

KEY = jax.random.key(0)
DIGITS = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float64)
LABELS = np.array([3, 0])


def sizes(model):
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, KEY, DIGITS))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.shape for path, leaf in leaves}


def test_lenet5_has_the_papers_layers():
    """C1 6 × 5 × 5, C3 16 × 5 × 5, C5 120, F6 84: 61,706 parameters, with full tables and without pools' own."""
    found = sizes(lenet5())
    assert found["conv1.K"] == (5, 5, 1, 6)
    assert found["conv2.K"] == (5, 5, 6, 16)
    assert (found["fc1.W"], found["fc2.W"], found["fc3.W"]) == ((400, 120), (120, 84), (84, 10))
    assert sum(np.prod(shape) for shape in found.values()) == 61706


def test_resnet_has_the_papers_layers():
    """The three stages of 16, 32 and 64 features; a 1 × 1 shortcut where the shape changes, and only there."""
    found = sizes(resnet(ResnetConfig(blocks=(3, 3, 3))))
    assert found["layer1.0.residual.conv1.K"] == (3, 3, 16, 16)
    assert found["layer2.0.residual.inside.conv1.K"] == (3, 3, 16, 32)
    assert found["layer2.0.residual.shortcut.0.K"] == (1, 1, 16, 32)
    assert found["layer3.2.residual.conv2.K"] == (3, 3, 64, 64)
    assert found["fc.W"] == (64, 10)
    assert len([name for name in found if name.endswith("K")]) == 1 + 18 + 2
    y, _ = jax.eval_shape(lambda x: resnet().forward(resnet().init(KEY, x), x), DIGITS)
    assert y.shape == (2, 10)


MODELS = {
    "lenet5": (lenet5(), (2, 28, 28, 1)),
    "lenet5-today": (lenet5(Lenet5Config(activation="relu", pool="max")), (2, 28, 28, 1)),
    "resnet": (resnet(ResnetConfig(widths=(4, 8), blocks=(1, 1), groups=2)), (2, 8, 8, 1)),
    "resnet-batch": (resnet(ResnetConfig(widths=(4,), blocks=(1,), norm="batch")), (2, 8, 8, 3)),
}


@pytest.mark.parametrize(("model", "shape"), MODELS.values(), ids=MODELS)
def test_gradients(model, shape):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    like = jax.eval_shape(model.init, KEY, x)
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape) / np.sqrt(p.size / p.shape[-1]), like)
    both = both_gradients(model, hg.softmax_cross_entropy(), 0)(params, x, LABELS)
    assert_same(*both, rtol=1e-11)  # batch norm of two small images magnifies roundings


def test_refusals():
    small = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    rows = {
        "lenet5: classes must be a positive integer, got 0": lambda: lenet5(Lenet5Config(classes=0)),
        "lenet5: activation must be 'tanh' or 'relu', got 'gelu'": lambda: lenet5(Lenet5Config(activation="gelu")),
        "lenet5: pool must be 'average' or 'max', got 'sum'": lambda: lenet5(Lenet5Config(pool="sum")),
        r"resnet: blocks must be one number for each of \(16, 32, 64\).*": lambda: resnet(ResnetConfig(blocks=(1, 1))),
        "resnet: blocks must be a positive integer, got 0": lambda: resnet(ResnetConfig(blocks=(1, 0, 1))),
        "resnet: norm must be 'group' or 'batch', got 'layer'": lambda: resnet(ResnetConfig(norm="layer")),
        "in layer conv2: convolution_forward: the window must fit.*": lambda: jax.eval_shape(lenet5().init, KEY, small),
    }
    assert_refused(rows)
