"""Functions of a symmetric matrix: at and near equal eigenvalues, of low rank, of any f; against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from rules.linear_algebra.matrices import RNG, C, orthogonal, passes, run, symmetric
from rules.refusals import refuses

from handgrad import rules

V = orthogonal(4)


def turned(*values):
    return V @ np.diag(values) @ V.T


def test_divided_differences_near_equal_eigenvalues():
    """In V's coordinates dX is F ∘ dY: of the exponential, F is known to all digits for every gap."""
    gaps = np.array([0, 1e-15, 1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 0.05, 0.1, 0.3, 1, 30])
    M = np.stack([np.diag([0.7, 0.7 + gap]) for gap in gaps])
    _, dX = run(lambda M: passes("symmetric_function", np.ones(M.shape), M, f="exp"), M)
    gap = M[:, 1, 1] - M[:, 0, 0]
    exact = np.exp(0.7) * np.where(gap == 0, 1, np.expm1(gap) / np.where(gap == 0, 1, gap))
    np.testing.assert_allclose(dX[:, 0, 1], exact, rtol=1e-14)


def test_a_root_of_low_rank():
    """X = A Aᵀ of rank 2: the root is ours to rounding, and the gradient that of tr (K X^½) by A, which autodiff finds
    through the 2 by 2 matrix AᵀA: (A Aᵀ)^½ = A (AᵀA)^(−½) Aᵀ."""
    A, K = RNG.standard_normal((4, 2)), symmetric(RNG.standard_normal((4, 4)))

    def small(A):
        S, W = jnp.linalg.eigh(A.T @ A)
        return jnp.sum(K * (A @ W @ jnp.diag(S**-0.5) @ W.T @ A.T))

    def both(A):
        Y, dX = passes("symmetric_function", jnp.asarray(K)[None], (A @ A.T)[None], f="sqrt")
        return Y[0], 2 * dX[0] @ A, jax.grad(small)(A)

    Y, found, expected = run(both, A)
    np.testing.assert_allclose(Y @ Y, A @ A.T, atol=1e-14)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_the_power_zero():
    """X⁰ is I, and constant, at eigenvalues of 0 too."""
    Y, dX = run(lambda M: passes("symmetric_function", np.ones((4, 4)), M, f=0), turned(0.0, 0.0, 1.0, -2.0))
    np.testing.assert_allclose(Y, np.eye(4), atol=1e-14)
    assert not dX.any()


def test_against_scipy():
    """Values; and derivatives by SciPy's Fréchet derivative of the exponential, at a threefold eigenvalue."""
    M = turned(0.5, 2.0, 2.0, 2.0)
    dY = np.pad(C, ((0, 1), (0, 1)))
    functions = {"sqrt": scipy.linalg.sqrtm, "log": scipy.linalg.logm, "exp": scipy.linalg.expm}
    found, inverse = run(
        lambda M: (
            {f: passes("symmetric_function", dY[None], M[None], f=f) for f in functions},
            passes("symmetric_function", dY, M, f=-1),
        ),
        M,
    )
    for f, function in functions.items():
        np.testing.assert_allclose(found[f][0][0], function(M), atol=1e-13)
    _, expected = scipy.linalg.expm_frechet(M, symmetric(dY))
    np.testing.assert_allclose(found["exp"][1][0], expected, atol=1e-13)
    np.testing.assert_allclose(inverse[0], np.linalg.inv(M), atol=1e-13)
    np.testing.assert_allclose(inverse[1], -inverse[0] @ symmetric(dY) @ inverse[0], atol=1e-13)


def test_a_kink_between_eigenvalues():
    """|s| has one at 0: the rules of 4 and 6 points disagree, and the quotient is right."""
    M = np.diag([-1e-3, 2e-3, 1.0])
    _, dX = run(lambda M: passes("symmetric_function", np.ones((3, 3)), M, f=(jnp.abs, jnp.sign)), M)
    np.testing.assert_allclose([dX[0, 1], dX[0, 0], dX[1, 2]], [1 / 3, -1, 1], rtol=1e-13)


@pytest.mark.parametrize("f", ["cos", True, (jnp.sin,), None])
def test_what_is_no_function(f):
    message = "f must be 'sqrt', 'log', 'exp', a number or a pair (f, f′), got…"
    refuses(rules.symmetric_function, message, np.eye(3), f=f)
