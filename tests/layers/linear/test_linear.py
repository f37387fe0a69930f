import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 5)))


def test_init():
    params = hg.linear(2).init(KEY, X)
    assert isinstance(params, hg.LinearParams)
    assert (params.W.shape, params.b.shape) == ((5, 2), (2,))
    assert params.W.std() > 0
    assert not params.b.any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_params_get_the_dtype_of_x(dtype):
    params = hg.linear(2).init(KEY, X.astype(dtype))
    assert params.W.dtype == params.b.dtype == dtype


def test_init_from_a_shape_equals_init_from_an_array():
    from_array, from_shape = (hg.linear(2).init(KEY, x) for x in (X, jax.ShapeDtypeStruct(X.shape, X.dtype)))
    assert all((a == b).all() for a, b in zip(from_array, from_shape, strict=True))


def test_initializers_get_the_shape_the_dtype_and_keys_of_their_own():
    calls = []

    def initializer(key, shape, dtype):
        calls.append((jax.random.key_data(key).tolist(), shape, dtype))
        return jnp.full(shape, len(calls), dtype)

    params = hg.linear(2, init_W=initializer, init_b=initializer).init(KEY, X)
    assert [call[1:] for call in calls] == [((5, 2), X.dtype), ((2,), X.dtype)]
    assert calls[0][0] != calls[1][0]
    assert (params.W == 1).all()
    assert (params.b == 2).all()


def test_the_default_initializer_is_lecun_normal():
    W = hg.linear(400).init(KEY, jax.ShapeDtypeStruct((1, 100), jnp.float64)).W
    assert abs(float(W.std()) * 10 - 1) < 0.02
    assert abs(float(W.mean())) < 0.002


@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_backward(bias):
    layer = hg.linear(2, bias=bias, init_b=jax.nn.initializers.normal())
    params = layer.init(KEY, X)
    dy = jnp.asarray(np.random.default_rng(1).standard_normal((4, 3, 2)))

    def reference(params, x):
        y = jnp.einsum("bti,io->bto", x, params.W)
        return y + jnp.broadcast_to(params.b, y.shape) if bias else y

    y, residuals = layer.forward(params, X)
    dx, factors = layer.backward(residuals, dy)
    expected, vjp = jax.vjp(reference, params, X)
    dparams, expected_dx = vjp(dy)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-12, atol=1e-14)
    assert isinstance(factors, hg.LinearParams)
    assert isinstance(factors.W, hg.factors.Outer)
    np.testing.assert_allclose(factors.W.sum(), dparams.W, rtol=1e-12, atol=1e-14)
    if bias:
        assert isinstance(factors.b, hg.factors.Total)
        np.testing.assert_allclose(factors.b.sum(), dparams.b, rtol=1e-12, atol=1e-14)
    else:
        assert params.b is None
        assert factors.b is None


def test_the_residuals_are_references():
    """Neither the input nor a parameter is copied."""
    layer = hg.linear(2)
    params = layer.init(KEY, X)
    kept = jax.tree.leaves(layer.forward(params, X)[1])
    assert len(kept) == 3
    assert {id(array) for array in kept} == {id(X), id(params.W), id(params.b)}


def test_n_in_is_held_to():
    assert hg.linear(2, n_in=5).init(KEY, X).W.shape == (5, 2)
    with pytest.raises(hg.InputError, match=r"^linear: x must have 4 features, got float64 \(4, 3, 5\)$"):
        hg.linear(2, n_in=4).init(KEY, X)


@pytest.mark.parametrize("n_out", [0, -1, 2.0, None, "2"])
def test_n_out_is_a_positive_integer(n_out):
    with pytest.raises(hg.InputError, match=r"^linear: n_out must be a positive integer, got "):
        hg.linear(n_out)


@pytest.mark.parametrize("x", [X.astype(int), X[0, 0], [[1.0]], None], ids=["integers", "vector", "list", "None"])
def test_init_refuses(x):
    with pytest.raises(hg.InputError, match=r"^linear: x must .*, got "):
        hg.linear(2).init(KEY, x)


@pytest.mark.parametrize("bias", [True, False])
def test_params_of_another_model(bias):
    layer, other = hg.linear(2, bias=bias), hg.linear(2, bias=not bias)
    expected = "an array" if bias else "None"
    with pytest.raises(hg.InputError, match=rf"^linear: params\.b must be {expected}, got "):
        layer.forward(other.init(KEY, X), X)
    for params in ((), (X, X), {"W": X}, None, X):
        with pytest.raises(hg.InputError, match=r"^linear: params must be LinearParams, got "):
            layer.forward(params, X)


@pytest.mark.parametrize("shape", [(4, 5), (6, 3)], ids=["another n_out", "another n_in"])
def test_params_of_another_layer(shape):
    """A layer runs with parameters of its own shape only, even where others would fit the input."""
    params = hg.LinearParams(jnp.ones(shape), jnp.ones(shape[1]))
    with pytest.raises(hg.InputError, match=r"^linear: params.W must have shape \(4, 3\) \(n_in, n_out\), got float64"):
        hg.linear(3, n_in=4).forward(params, jnp.ones((2, shape[0])))
