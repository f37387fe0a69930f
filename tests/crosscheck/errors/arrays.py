"""Arrays that the errors are made of."""

import jax.numpy as jnp
import numpy as np


def normal(*shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    if jnp.issubdtype(dtype, jnp.complexfloating):
        arrays = [array + 1j * rng.standard_normal(array.shape) for array in arrays]
    return [array.astype(dtype) for array in arrays]
