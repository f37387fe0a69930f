"""mamba: the block of Mamba, from its definition."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, both_passes, drawn

from handgrad.cases._memories import selective_scan
from handgrad.layers import mamba

X, DY = np.random.default_rng(0).standard_normal((2, 2, 6, 8))


def block(params, x):
    """With two states."""
    inner, mixer = params.inner, params.mixer
    taps = inner["convolve"].K.shape[0]
    before = jnp.pad(x @ inner["project"].W, [(0, 0), (taps - 1, 0), (0, 0)])
    u = sum(before[:, t : t + x.shape[1]] * inner["convolve"].K[t][None] for t in range(taps))
    u = jax.nn.silu(u + inner["convolve"].b[None, None])
    r, B, C = jnp.split(u @ mixer.select.W, [mixer.step.W.shape[0], mixer.step.W.shape[0] + 2], axis=2)
    delta = jax.nn.softplus(r @ mixer.step.W + mixer.step.b[None, None])
    Y, _ = selective_scan(u, delta, -jnp.exp(mixer.log_rate), B, C, mixer.skip)
    return (jax.nn.silu(x @ params.gate.W) * Y) @ params.output.W


def test_mamba_is_its_definition():
    layer = mamba(states=2, rank=3, chunk=4)
    assert_same(*both_passes(layer, block)(drawn(layer, X, 0.5), X, DY), 1e-11)


def test_init():
    """Rates 1, 2, … of each feature, and step sizes within their bounds."""
    layer = mamba(states=4, expand=3)
    params = layer.init(jax.random.key(0), X.astype(np.float32))
    assert params.inner["project"].W.shape == (8, 24)
    assert params.mixer.select.W.shape == (24, 1 + 8)
    np.testing.assert_allclose(np.exp(params.mixer.log_rate), np.tile([1, 2, 3, 4], (24, 1)), rtol=1e-6)
    steps = np.log1p(np.exp(np.asarray(params.mixer.step.b, np.float64)))
    assert 0.9e-3 < steps.min() < 1e-2 < steps.max() < 0.11


def test_refusals():
    assert_refused(
        {
            "mamba: states must be a positive integer, got 0": lambda: mamba(states=0),
            "mamba: rank must be a positive integer, got 0": lambda: mamba(rank=0),
        }
    )
