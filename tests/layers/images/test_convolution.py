"""convolution as a layer: parameters, residuals, and a convolution beside another as a shortcut."""

import jax
import pytest
from layers.images import kernels
from layers.images.kernels import X, drawn

import handgrad as hg
from handgrad import layers


def test_parameters():
    kernels.check_init(layers.convolution(6, 3, groups=2), (3, 3, 1, 6), "bfloat16")
    kernels.check_init(layers.convolution(6, (3, 1)), (3, 1, 2, 6), "float64")
    kernels.check_lecun_normal(layers.convolution(60, 3), seen=9 * 40)
    kernels.check_lecun_normal(layers.convolution(60, 3, groups=4), seen=9 * 10)
    kernels.check_without_bias(layers.convolution)


def test_bad_input():
    kernels.check_refusals(layers.convolution)


def test_the_residuals_are_references():
    layer = layers.convolution(3, 2)
    params = drawn(layer)
    kept = jax.tree.leaves(layer.forward(params, X)[1])
    assert {id(array) for array in kept} == {id(X), id(params.K), id(params.b)}


def test_a_shortcut():
    main, shortcut = hg.chain(layers.convolution(4, 3, strides=2), hg.tanh()), layers.convolution(4, 1, strides=2)
    kernels.check_model(hg.chain(a=hg.residual(main, shortcut), b=layers.global_average_pool()), n_out=4)


def test_a_shortcut_of_another_shape():
    layer = hg.residual(layers.convolution(4, 3, strides=2), layers.convolution(4, 1))
    unlike = r"the layer's output must be like the shortcut's output, float64 \(3, 6, 6, 4\), got float64 \(3, 3,"
    no_dict = "params must be a dict of 'inside', 'shortcut', one for each layer, got a tuple"
    for params, message in ((drawn(layer), unlike), ((), no_dict)):
        with pytest.raises(hg.InputError, match=f"^residual: {message}"):
            layer.forward(params, X)


def test_the_checker_looks_inside_a_shortcut():
    """Whichever of the two is wrong is named."""
    right = layers.convolution(4, 1, strides=2)
    wrong = hg.Layer(right.init, right.forward, lambda kept, dy: right.backward(kept, 2 * dy))
    model = hg.chain(a=hg.residual(right, wrong))
    report = hg.check_layer(model, X, params=drawn(model))
    assert report.verdict == "FAIL"
    assert "shortcut" in str(report)
