"""Equations as layers: of a pair, and of three matrices."""

import jax
import jax.numpy as jnp
import pytest
from layers.linear_algebra.as_layers import X, check_layers

import handgrad as hg
from handgrad import layers


def equation(A, B, C):
    n = len(A)
    return jnp.linalg.solve(jnp.kron(A, jnp.eye(n)) + jnp.kron(jnp.eye(n), B.T), C.ravel()).reshape(C.shape)


def test_values_and_gradients():
    def series(x):
        powers = [jnp.linalg.matrix_power(x[0], k) for k in range(20)]
        return sum(P @ x[1] @ P.mT for P in powers)

    check_layers(
        (layers.sylvester(), lambda x: jax.vmap(equation)(*x), (X, X + 1, X)),
        (layers.lyapunov(method="sign"), lambda x: jax.vmap(equation)(x[0], x[0].mT, x[1]), (X, X)),
        (layers.discrete_lyapunov(), series, (X / 20, X)),
    )


def test_what_is_no_tuple_of_three():
    with pytest.raises(hg.InputError) as raised:
        layers.sylvester().forward((), (X, X))
    assert str(raised.value) == "sylvester_forward: x must be a tuple (A, B, C), got tuple"
