"""spectral_norm in a network, and how its state moves, in a stack too."""

import jax
import numpy as np
from helpers import assert_refused, assert_same
from layers.images.kernels import check_model

import handgrad as hg
from handgrad import layers

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
X = np.random.default_rng(0).standard_normal((4, 5))


def test_a_network():
    """Weighted gradients and each example's norms, of every parameter, against autodiff."""
    check_model(
        hg.chain(
            hg.adaptive_average_pool(1),
            hg.flatten(),
            hg.spectral_norm(hg.linear(3), iterations=2),
            hg.tanh(),
            hg.spectral_norm(hg.linear(3, bias=False)),
        ),
        n_out=3,
    )


def test_state():
    """A begun layer has a largest singular value of about 1, power_iterated moves every a of a model, in a stack too,
    and merged the layer inside computes the same."""
    layer, stack = hg.spectral_norm(hg.linear(4)), hg.repeat(hg.spectral_norm(hg.linear(5)), 2)

    @jax.jit
    def run(x):
        params, of_stack = layer.init(KEY, x), stack.init(KEY, x)
        moved = layers.power_iterated({"one": params, "two": (of_stack, ())}, 200)
        merged = layers.merge_spectral_norm(moved["one"])
        return params, moved, (layer.forward(moved["one"], x)[0], hg.linear(4).forward(merged, x)[0]), merged

    params, moved, (y, same), merged = run(X)
    assert_same(y, same)
    np.testing.assert_allclose(np.linalg.norm(merged.W, 2), 1, rtol=1e-12)
    sigma = np.linalg.norm(params.inside.W.T @ params.a)
    assert 0.8 < sigma / np.linalg.norm(params.inside.W, 2) <= 1 + 1e-12
    for V, a in zip(moved["two"][0].inside.W, moved["two"][0].a, strict=True):
        np.testing.assert_allclose(np.linalg.norm(V.T @ a), np.linalg.norm(V, 2), rtol=1e-9)


def test_refusals():
    layer = hg.spectral_norm(hg.linear(2))
    weight = "expected params with a weight, W or K, as linear's, got"
    count = "iterations must be a positive integer, got 0"
    assert_refused(
        {
            f"spectral_norm: {count}": lambda: hg.spectral_norm(hg.linear(2), iterations=0),
            f"power_iterated: {count}": lambda: layers.power_iterated((), 0),
            f"add_spectral_norm: {weight} tuple": lambda: hg.spectral_norm(hg.relu()).init(KEY, X),
            "spectral_norm: params must be SpectralNormParams, got LinearParams": lambda: layer.forward(
                hg.LinearParams(np.ones((5, 2))), X
            ),
        }
    )
