"""The derived tolerance: u and γ̃_k."""

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck.evidence import tolerance


@pytest.mark.parametrize(
    ("dtype", "u"),
    [(np.float64, 2**-53), (np.float32, 2**-24), (np.float16, 2**-11), (jnp.bfloat16, 2**-8), (np.complex64, 2**-24)],
)
def test_unit_roundoff(dtype, u):
    assert tolerance.unit_roundoff(dtype) == u


def test_floor_is_lambda_sqrt_k_u():
    assert tolerance.floor(np.float64, 16) == 4 * 4 * 2**-53
    assert tolerance.floor(np.float32, 1) == 4 * 2**-24
    assert tolerance.floor(np.float32, 0) == tolerance.floor(np.float32, 1)
    assert (tolerance.RATIO, tolerance.LAMBDA) == (3.0, 4.0)
