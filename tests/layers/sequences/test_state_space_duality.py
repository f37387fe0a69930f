"""mamba2: the block of Mamba-2, from its definition."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, both_passes, drawn

from handgrad.layers import mamba2

X, DY = np.random.default_rng(0).standard_normal((2, 2, 6, 8))


def block(params, x):
    """Four heads of four features, two groups of three states; the states step by step."""
    mixer = params.mixer
    z, xBC, dt = jnp.split(x @ params.project.W, [16, 44], axis=2)
    taps = mixer.conv1d.K.shape[0]
    before = jnp.pad(xBC, [(0, 0), (taps - 1, 0), (0, 0)])
    xBC = sum(before[:, t : t + x.shape[1]] * mixer.conv1d.K[t][None] for t in range(taps))
    u, B, C = jnp.split(jax.nn.silu(xBC + mixer.conv1d.b[None, None]), [16, 22], axis=2)
    u = u.reshape(*u.shape[:2], 4, 4)
    B, C = (jnp.repeat(P.reshape(*P.shape[:2], 2, 3), 2, axis=2) for P in (B, C))
    dt = jax.nn.softplus(dt + mixer.dt_bias[None, None])

    def step(h, at):
        u, B, C, dt = at
        decay = jnp.exp(-dt * jnp.exp(mixer.A_log)[None])
        h = h * decay[..., None, None] + jnp.einsum("bh,bhn,bhz->bhnz", dt, u, B)
        return h, jnp.einsum("bhnz,bhz->bhn", h, C) + mixer.D[None, :, None] * u

    h = jnp.zeros((len(x), 4, 4, 3))
    _, Y = jax.lax.scan(step, h, tuple(jnp.moveaxis(P, 1, 0) for P in (u, B, C, dt)))
    Z = (jnp.moveaxis(Y, 0, 1).reshape(z.shape) * jax.nn.silu(z)).reshape(*z.shape[:2], 2, 8)
    N = Z / jnp.sqrt(jnp.mean(Z**2, axis=3, keepdims=True) + 1e-5)
    return (N.reshape(z.shape) * mixer.norm[None, None]) @ params.output.W


def test_mamba2_is_its_definition():
    layer = mamba2(4, states=3, groups=2, chunk=4)
    assert_same(*both_passes(layer, block)(drawn(layer, X, 0.5), X, DY), 1e-11)


def test_init():
    """Rates and step sizes within their bounds; of published sizes, for a width of 64."""
    params = jax.jit(lambda key: mamba2(32, expand=4).init(key, X.astype(np.float32).repeat(8, 2)))(jax.random.key(0))
    mixer = jax.tree.map(np.asarray, params.mixer)
    assert params.project.W.shape == (64, 256 + 256 + 2 * 128 + 32)
    assert mixer.conv1d.K.shape == (4, 1, 256 + 2 * 128)
    rates, steps = np.exp(mixer.A_log), np.log1p(np.exp(mixer.dt_bias.astype(np.float64)))
    assert 1 <= rates.min() < 4 < 12 < rates.max() <= 16
    assert 0.9e-3 < steps.min() < 3e-3 < 0.03 < steps.max() < 0.11
    assert (mixer.D == 1).all()
    assert (mixer.norm == 1).all()


def test_of_bfloat16():
    """Step sizes and the states are in float32; y, dx and the parameters' gradients aren't."""
    layer, x = mamba2(2, states=3), jax.ShapeDtypeStruct((2, 5, 4), jnp.bfloat16)
    params = jax.eval_shape(layer.init, jax.random.key(0), x)
    y, kept = jax.eval_shape(layer.forward, params, x)
    dx, dparams = jax.eval_shape(layer.backward, kept, y)
    assert kept.mixer.scan.Delta.dtype == kept.mixer.scan.A.dtype == kept.mixer.scan.states.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((y, dx))} == {jnp.dtype(jnp.bfloat16)}
    mixer = dparams.mixer
    assert {f.dtype for f in (*mixer.conv1d, *mixer[1:])} == {jnp.dtype(jnp.bfloat16)}


def test_refusals():
    wrong = mamba2(2, states=3)
    params = jax.eval_shape(wrong.init, jax.random.key(0), X)
    short = params._replace(mixer=params.mixer._replace(dt_bias=np.zeros(1)))
    assert_refused(
        {
            "mamba2: states must be a positive integer, got 0": lambda: mamba2(2, states=0),
            "mamba2: groups must divide the heads, got 2 groups of 3 heads": lambda: mamba2(3, groups=2),
            "mamba2: heads must divide expand × width, got 3 heads and 2 × 8": lambda: jax.eval_shape(
                mamba2(3).init, jax.random.key(0), X
            ),
            r"in layer mixer: mamba2: params.mixer.dt_bias must have shape \(2,\) \(one .*\), got float64 \(1,\)": (
                lambda: jax.eval_shape(wrong.forward, short, X)
            ),
        }
    )
