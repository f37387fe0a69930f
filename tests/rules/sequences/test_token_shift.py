"""token_shift: dtypes side by side, and what its arguments must be; everything else is in the table of cases."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import passes
from rules.refusals import refuses

from handgrad import rules


def test_a_row_in_front_of_a_wider_dtype():
    """x0 in float32 before tokens in bfloat16: Y is in float32, and x0 is not rounded."""
    X, mu, x0 = jnp.ones((1, 2, 1), jnp.bfloat16), np.full(1, 0.5, np.float32), np.full((1, 1), 1.001, np.float32)
    Y, (_, dmu, _) = jax.jit(lambda *a: passes(rules.token_shift, np.ones((1, 2, 1), np.float32), *a))(X, mu, x0)
    np.testing.assert_allclose(np.ravel(Y), [1.0005, 1], rtol=1e-7)
    np.testing.assert_allclose(dmu, [0.001], rtol=1e-4)


def test_refusals():
    X, mu, rule = np.ones((2, 3, 4)), np.ones(4), rules.token_shift
    refuses(rule, "X must have shape (batch, tokens, n), one token at least, got float64 (3, 4)", X[0], mu)
    refuses(rule, "X must have shape (batch, tokens, n), one token at least, got float64 (2, 0, 4)", X[:, :0], mu)
    refuses(rule, "mu must have shape (4,) (one for each feature), got float64 (3,)", X, mu[:3])
    refuses(rule, "x0 must have shape (2, 4) (one row …), got float64 (1, 4)", X, mu, X[:1, 0])
