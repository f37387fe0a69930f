"""FLOPs of matrix products, counted on the jaxpr."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.models.flops import product_flops


def test_products_are_counted_by_turn():
    """2 m k n of each product, three turns of a scan, the longer branch; a grouped kernel's own inputs."""
    A, x = np.ones((4, 5)), np.ones((2, 8, 8, 6))

    def function(A, x):
        B = lax.scan(lambda c, _: (c + A.T @ A, None), jnp.zeros((5, 5)), None, length=3)[0]
        C = lax.cond(A[0, 0] > 0, lambda: A @ B, lambda: A)
        y = lax.conv_general_dilated(
            x, np.ones((3, 3, 2, 9)), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )
        return C, jax.jit(jnp.sin)(y)

    products = 3 * 2 * 5 * 4 * 5 + 2 * 4 * 5 * 5
    assert product_flops(function, A, x) == products + 2 * (2 * 6 * 6 * 9) * (3 * 3 * 2)
