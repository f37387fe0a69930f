"""Norms where they are not differentiable, and of any size."""

import jax
import jax.numpy as jnp
import numpy as np
from rules.linear_algebra.matrices import X, orthogonal, passes, run


def test_the_frobenius_norm_at_zero():
    """0, where jax.grad gives NaN; the other examples are unaffected."""
    M = np.stack([0 * X[0], X[1]])
    Y, dX = run(lambda M: passes("frobenius_norm", np.array([2.0, 3.0]), M), M)
    assert Y[0] == 0
    assert (dX[0] == 0).all()
    np.testing.assert_allclose(dX[1], 3 * X[1] / np.linalg.norm(X[1]), rtol=1e-14)
    assert np.isnan(run(jax.grad(jnp.linalg.norm), M[0])).all()


def test_the_frobenius_norm_of_any_size():
    """Squares overflow or underflow where the norm does not; so does dY / Y where dY is large and Y small."""
    one = np.array([[3.0, 0.0], [0.0, -4.0]])
    sizes = np.array([1e-36, 1e-30, 1e30, 1e37])
    M = (sizes[:, None, None] * one).astype(np.float32)
    Y, dX = run(lambda M: passes("frobenius_norm", np.full(4, 1e30, np.float32), M), M)
    np.testing.assert_allclose(Y, 5 * sizes, rtol=1e-6)
    np.testing.assert_allclose(dX, np.broadcast_to(1e30 / 5 * one, (4, 2, 2)), rtol=1e-6)


def test_the_nuclear_norm_at_zero_and_equal_singular_values():
    """A subgradient everywhere: ⟨dX, X⟩ = Y, no singular value of dX beyond 1; at equal values it is the gradient."""
    values = [(2.0, 1.0, 0.0), (2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 2.0, 1.0)]
    U, V = orthogonal(4)[:, :3], orthogonal(3)
    M = np.stack([U @ np.diag(some) @ V.T for some in values])
    Y, dX = run(lambda M: passes("nuclear_norm", np.ones(4), M), M)
    np.testing.assert_allclose(Y, np.sum(values, 1), atol=1e-14)
    np.testing.assert_allclose(np.sum(dX * M, (1, 2)), np.sum(values, 1), atol=1e-14)
    assert (np.linalg.norm(dX, 2, axis=(1, 2)) <= 1 + 1e-14).all()
    np.testing.assert_allclose(dX[3], U @ V.T, atol=1e-14)
