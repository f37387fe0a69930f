"""Inverse and linear systems as layers: of one matrix, and of a pair."""

import jax.numpy as jnp
import pytest
from layers.linear_algebra.as_layers import B, X, check_in_a_chain, check_layers

import handgrad as hg
from handgrad import layers


def solve(part):
    """The plain solve with a part of A."""
    return lambda x: jnp.linalg.solve(part(x[0]), x[1])


def test_values_and_gradients():
    check_layers(
        (layers.inverse(), jnp.linalg.inv, X),
        (layers.solve(), solve(lambda A: A), (X, B)),
        (layers.triangular_solve(), solve(jnp.tril), (X, B)),
        (layers.triangular_solve(lower=False), solve(jnp.triu), (X, B)),
        (layers.triangular_solve(unit_diagonal=True), solve(lambda A: jnp.tril(A, -1) + jnp.eye(3)[None]), (X, B)),
        (layers.positive_definite_solve(), solve(lambda A: (A + A.mT) / 2), (X, B)),
    )


def test_in_a_chain():
    check_in_a_chain(layers.inverse())


@pytest.mark.parametrize(("wrong", "got"), [(X, "float64 (2, 3, 3)"), ((X,), "tuple"), ([X, B], "list")])
def test_what_is_no_pair(wrong, got):
    with pytest.raises(hg.InputError) as raised:
        layers.solve().forward((), wrong)
    assert str(raised.value) == f"solve_forward: x must be a pair (A, B), got {got}"


def test_params_of_another_model():
    for layer, x in ((layers.solve(), (X, B)), (layers.inverse(), X)):
        with pytest.raises(hg.InputError, match=r"_forward: params must be \(\), got dict"):
            layer.forward({}, x)
