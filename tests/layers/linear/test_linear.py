import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
X = np.random.default_rng(0).standard_normal((4, 3, 5))


def test_init():
    """From an array or its shape; in the dtype of x; initializers get the shape, the dtype and a key each."""
    calls = []

    def initializer(key, shape, dtype):
        calls.append((key, shape, dtype))
        return jnp.full(shape, len(calls), dtype)

    @jax.jit
    def init(x):
        mine = hg.linear(2, init_W=initializer, init_b=initializer).init(KEY, x)
        keys = [jax.random.key_data(key) for key, *_ in calls]
        return hg.linear(2).init(KEY, x), hg.linear(2).init(KEY, jax.ShapeDtypeStruct(x.shape, x.dtype)), mine, keys

    params, from_shape, mine, keys = init(X)
    assert isinstance(params, hg.LinearParams)
    assert (params.W.shape, params.b.shape) == ((5, 2), (2,))
    assert np.asarray(params.W).std() > 0
    assert not np.asarray(params.b).any()
    assert all((np.asarray(a) == b).all() for a, b in zip(params, from_shape, strict=True))
    assert [call[1:] for call in calls] == [((5, 2), X.dtype), ((2,), X.dtype)]
    assert (np.asarray(keys[0]) != keys[1]).any()
    assert (np.asarray(mine.W) == 1).all()
    assert (np.asarray(mine.b) == 2).all()
    for dtype in ("bfloat16", "float32"):
        params = jax.eval_shape(lambda dtype=dtype: hg.linear(2).init(KEY, jax.ShapeDtypeStruct(X.shape, dtype)))
        assert params.W.dtype == params.b.dtype == dtype


def test_the_default_initializer_is_lecun_normal():
    W = np.asarray(hg.linear(400).init(KEY, jax.ShapeDtypeStruct((1, 100), jnp.float64)).W)
    assert abs(W.std() * 10 - 1) < 0.02
    assert abs(W.mean()) < 0.002


@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_backward(bias):
    """Factors of their kinds; the residuals are references: neither the input nor a parameter is copied."""
    layer = hg.linear(2, bias=bias)
    rng = np.random.default_rng(1)
    params = hg.LinearParams(rng.standard_normal((5, 2)), rng.standard_normal(2) if bias else None)

    def reference(params, x):
        y = jnp.einsum("bti,io->bto", x, params.W)
        return y + jnp.broadcast_to(params.b, y.shape) if bias else y

    @jax.jit
    def both(params, x, dy):
        y, residuals = layer.forward(params, x)
        assert {id(a) for a in jax.tree.leaves(residuals)} == {id(a) for a in jax.tree.leaves((params, x))}
        dx, factors = layer.backward(residuals, dy)
        assert isinstance(factors, hg.LinearParams)
        assert [type(f) for f in factors] == [hg.factors.Outer, hg.factors.Total if bias else type(None)]
        expected, pullback = jax.vjp(reference, params, x)
        return (y, hg.materialize(factors), dx), (expected, *pullback(dy))

    assert_same(*both(params, X, rng.standard_normal((4, 3, 2))))


def test_settings_and_inputs():
    assert jax.eval_shape(hg.linear(2, n_in=5).init, KEY, X).W.shape == (5, 2)
    with pytest.raises(hg.InputError, match=r"^linear: x must have 4 features, got float64 \(4, 3, 5\)(\n|$)"):
        hg.linear(2, n_in=4).init(KEY, X)
    for n_out in (0, -1, 2.0, None, "2"):
        with pytest.raises(hg.InputError, match=r"^linear: n_out must be a positive integer, got "):
            hg.linear(n_out)
    for x in (X.astype(int), X[0, 0], [[1.0]], None):
        with pytest.raises(hg.InputError, match=r"^linear: x must .*, got "):
            hg.linear(2).init(KEY, x)


@pytest.mark.parametrize("bias", [True, False])
def test_params_of_another_layer(bias):
    """A layer runs with parameters of its own shape only, even where others would fit the input."""
    W, b = np.ones((5, 2)), np.ones(2)
    layer, other = hg.linear(2, bias=bias), hg.LinearParams(W, None if bias else b)
    expected = "an array" if bias else "None"
    with pytest.raises(hg.InputError, match=rf"^linear: params\.b must be {expected}, got "):
        layer.forward(other, X)
    for params in ((), (X, X), {"W": X}, None, X):
        with pytest.raises(hg.InputError, match=r"^linear: params must be LinearParams, got "):
            layer.forward(params, X)
    for shape in ((4, 5), (6, 3)):
        params = hg.LinearParams(np.ones(shape), np.ones(shape[1]))
        message = r"^linear: params.W must have shape \(4, 3\) \(n_in, n_out\), got float64"
        with pytest.raises(hg.InputError, match=message):
            hg.linear(3, n_in=4).forward(params, np.ones((2, shape[0])))
