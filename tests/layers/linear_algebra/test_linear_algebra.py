"""Every matrix operation as a layer: of one matrix, of a pair, with one output or several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, 3, 3)) + 4 * np.eye(3))
B = jnp.asarray(RNG.standard_normal((2, 3, 2)))


def symmetric(X):
    return (X + X.mT) / 2


def norm(order):
    return lambda X: jnp.linalg.norm(X, ord=order, axis=(-2, -1))


ONE = {
    "inverse": (layers.inverse(), jnp.linalg.inv),
    "trace": (layers.trace(), lambda X: jnp.trace(X, axis1=-2, axis2=-1)),
    "determinant": (layers.determinant(), jnp.linalg.det),
    "log_determinant": (layers.log_determinant(), lambda X: tuple(jnp.linalg.slogdet(X))),
    "frobenius_norm": (layers.frobenius_norm(), norm("fro")),
    "nuclear_norm": (layers.nuclear_norm(), norm("nuc")),
    "cholesky": (layers.cholesky(), jnp.linalg.cholesky),
    "qr": (layers.qr(), lambda X: tuple(jnp.linalg.qr(X))),
    "symmetric_eigen": (layers.symmetric_eigen(), lambda X: tuple(jnp.linalg.eigh(X))),
    "svd": (layers.svd(), lambda X: tuple(jnp.linalg.svd(X, full_matrices=False))),
    "matrix_exponential": (layers.matrix_exponential(), jax.scipy.linalg.expm),
}
TWO = {
    "solve": (layers.solve(), jnp.linalg.solve),
    "lower": (layers.triangular_solve(), lambda A, B: jnp.linalg.solve(jnp.tril(A), B)),
    "upper": (layers.triangular_solve(lower=False), lambda A, B: jnp.linalg.solve(jnp.triu(A), B)),
    "unit": (
        layers.triangular_solve(unit_diagonal=True),
        lambda A, B: jnp.linalg.solve(jnp.tril(A, -1) + jnp.eye(3)[None], B),
    ),
    "positive_definite": (layers.positive_definite_solve(), lambda A, B: jnp.linalg.solve(symmetric(A), B)),
}


@pytest.mark.parametrize(("layer", "reference"), [*ONE.values(), *TWO.values()], ids=[*ONE, *TWO])
def test_value_and_gradient(layer, reference):
    """Between other operations, under jax.grad: what custom_vjp makes of the layer."""
    x = X if any(layer is one for one, _ in ONE.values()) else (X, B)
    assert layer.init(jax.random.key(0), x) == ()

    def program(function):
        def scalar(x):
            y = function(jax.tree.map(lambda a: a + jnp.sin(a) / 8, x))
            return sum(jnp.sum(jnp.cos(leaf) * leaf) for leaf in jax.tree.leaves(y))

        return jax.value_and_grad(scalar)

    f = hg.custom_vjp(layer)
    found, expected = jax.jit(
        lambda x: (
            program(lambda x: f((), x))(x),
            program(lambda x: reference(*x) if isinstance(x, tuple) else reference(x))(x),
        )
    )(x)
    assert_same(found, expected, 1e-11)


@pytest.mark.parametrize("name", ["inverse", "cholesky", "matrix_exponential"])
def test_in_a_chain(name):
    """After a linear layer, whose weights' gradient is a factor."""
    model = hg.chain(hg.linear(3), ONE[name][0], hg.linear(2))
    rng = np.random.default_rng(1)
    near = np.eye(3) + rng.standard_normal((3, 3)) / 40  # what enters stays positive definite
    params = hg.LinearParams(near, np.zeros(3)), (), hg.LinearParams(rng.standard_normal((3, 2)), np.ones(2))
    target = rng.standard_normal((2, 3, 2))

    @jax.jit
    def both(params):
        autodiff = jax.value_and_grad(hg.objective(model, hg.squared_error()))
        return hg.value_and_grad(model, hg.squared_error())(params, X, target), autodiff(params, X, target)

    found, expected = both(params)
    assert np.isfinite(found[0])
    assert_same(found, expected, 1e-11)


def test_what_is_no_pair():
    for wrong, got in ((X, "float64 (2, 3, 3)"), ((X,), "tuple"), ([X, B], "list")):
        with pytest.raises(hg.InputError) as raised:
            layers.solve().forward((), wrong)
        assert str(raised.value) == f"solve_forward: x must be a pair (A, B), got {got}"


def test_params_of_another_model():
    for layer, x in ((layers.solve(), (X, B)), (layers.inverse(), X)):
        with pytest.raises(hg.InputError, match=r"_forward: params must be \(\), got dict"):
            layer.forward({}, x)
