"""A diagonal plus low rank, as layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layers.linear_algebra.as_layers import B, X, check_layers

import handgrad as hg
from handgrad import layers

d, U = np.stack([np.arange(3.0) + 4, np.arange(3.0) + 5]), X[..., :1]


def dense(x):
    return jax.vmap(jnp.diag)(x[0]) + x[1] @ x[2].mT


def test_values_and_gradients():
    check_layers(
        (layers.low_rank_solve(), lambda x: jnp.linalg.solve(dense(x), x[3]), (d, U, U, B)),
        (layers.low_rank_log_determinant(), lambda x: tuple(jnp.linalg.slogdet(dense(x))), (d, U, U)),
    )


def test_a_layer_takes_a_batch():
    """The rows of a single matrix are no examples."""
    message = (
        r"^inverse_forward: in a layer, X must be a batch of matrices, \(batch, ..., m, n\), got float64 \(3, 3\)$"
    )
    with pytest.raises(hg.InputError, match=message):
        layers.inverse().forward((), X[0])
    with pytest.raises(hg.InputError, match="in a layer, U must be a batch of matrices"):
        layers.low_rank_solve().forward((), (d[0], U[0], U[0], B[0]))
