"""The small network of the figures: two features, four hidden units under tanh, two outputs, three examples."""

import jax
import numpy as np

import handgrad as hg

jax.config.update("jax_enable_x64", True)

MODEL = hg.chain(hg.linear(4), hg.tanh(), hg.linear(2))
LOSS = hg.squared_error()


def numbers() -> tuple[tuple, np.ndarray, np.ndarray]:
    """(params, X, T): every number has one decimal, so that a reader can recompute the figures."""
    rng = np.random.default_rng(0)
    X, T = (rng.standard_normal((3, 2)).round(1) for _ in range(2))
    like = jax.eval_shape(MODEL.init, jax.random.key(0), X)
    return jax.tree.map(lambda p: rng.standard_normal(p.shape).round(1), like), X, T
