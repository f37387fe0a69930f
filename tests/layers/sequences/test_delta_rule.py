"""delta_net: the block of DeltaNet and of Gated DeltaNet, from their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, both_passes, drawn

from handgrad import factors
from handgrad.cases._memories import delta_rule
from handgrad.layers import delta_net

X, DY = np.random.default_rng(0).standard_normal((2, 2, 6, 8))


def convolved(A, p):
    """Of each feature, the last taps of time alone."""
    taps = p["convolve"].K.shape[0]
    before = jnp.pad(A @ p["project"].W, [(0, 0), (taps - 1, 0), (0, 0)])
    return jax.nn.silu(sum(before[:, t : t + A.shape[1]] * p["convolve"].K[t][None] for t in range(taps)))


def block(params, x):
    """With heads of four features."""

    def by_head(A):
        return A.reshape(*A.shape[:2], -1, 4)

    q, k, v = (by_head(convolved(x, p)) for p in params[:3])
    q, k = (A / jnp.sqrt(jnp.sum(A**2, axis=-1, keepdims=True) + 1e-6) for A in (q, k))
    log_decay = None
    if params.decay is not None:
        steps = jax.nn.softplus(x @ params.decay["project"].W + params.decay["project"].b[None, None])
        log_decay = -jnp.exp(params.mixer.log_rate)[None, None] * steps
    Y, _ = delta_rule(q, k, v, jax.nn.sigmoid(x @ params.beta["project"].W), log_decay)
    Y = Y / jnp.sqrt(jnp.mean(Y**2, axis=-1, keepdims=True) + 1e-6) * params.mixer.gamma[None, None, None]
    if params.gate is not None:
        Y = Y * jax.nn.silu(by_head(x @ params.gate.W))
    return Y.reshape(*x.shape[:2], -1) @ params.output.W


def test_delta_net_is_its_definition():
    for layer in (delta_net(2, chunk=4), delta_net(2, gated=True, kernel=3)):
        assert_same(*both_passes(layer, block)(drawn(layer, X, 0.5), X, DY), 1e-11)


def test_parameters_and_their_factors():
    layer = delta_net(2, gated=True, head_size=3, value_size=5, kernel=None)
    params = jax.eval_shape(layer.init, jax.random.key(0), X)
    assert [p["project"].W.shape for p in params[:4]] == [(8, 6), (8, 6), (8, 10), (8, 2)]
    assert (params.gate.W.shape, params.output.W.shape) == ((8, 10), (10, 8))
    assert "convolve" not in params.query
    assert (params.mixer.gamma.shape, params.mixer.log_rate.shape) == ((5,), (2,))

    def back(params):
        y, kept = layer.forward(params, X)
        return layer.backward(kept, y)[1]

    found = jax.eval_shape(back, params)
    assert isinstance(found.mixer.gamma, factors.Hadamard)
    assert isinstance(found.mixer.log_rate, factors.Total)


def test_refusals():
    assert_refused(
        {
            "delta_net: heads must be a positive integer, got 0": lambda: delta_net(0),
            "delta_net: kernel must be a positive integer, got 0": lambda: delta_net(2, kernel=0),
            "delta_net: 3 must divide the width of x, got 8, or give both sizes": lambda: jax.eval_shape(
                delta_net(3).init, jax.random.key(0), X
            ),
        }
    )
