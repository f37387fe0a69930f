"""Equal values: the vectors are arbitrary, but functions that don't depend on the choice have a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rules.linear_algebra.matrices import RNG, SPD, C, X, check_composition, orthogonal, passes, run, symmetric

from handgrad import rules

TURNED = orthogonal(3)
DEGENERATE = np.stack([np.diag([1.0, 1.0, 2.5]), TURNED @ np.diag([1.0, 1.0, 2.5]) @ TURNED.T])


def matrix_sign(M):
    """By Newton's iteration, without eigenvectors: +1 and −1 in each eigenvalue's place."""
    step = lambda M, _: ((M + jnp.linalg.inv(M)) / 2, None)  # noqa: E731
    return jax.lax.scan(step, M, length=12)[0]


def through(op, function):
    """M -> the gradient of function(*outputs) for each matrix, by the rule."""

    def gradient(M):
        Y, residuals = getattr(rules, op).forward(M)
        dY = jax.vmap(jax.grad(function, argnums=tuple(range(len(Y)))))(*Y)
        return getattr(rules, op).backward(residuals, dY)[0]

    return gradient


def test_equal_eigenvalues_in_a_function_of_all_values():
    """tr eˣ, whose gradient is eˣ."""
    gradient = through("symmetric_eigen", lambda S, V: jnp.sum(jnp.exp(S)))
    found, expected = run(lambda M: (gradient(M), jax.scipy.linalg.expm(M)), DEGENERATE)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_equal_eigenvalues_in_a_function_of_their_span():
    """⟨C, P⟩, P the projector onto the span of the two equal ones' vectors; jax.grad gives NaN, or noise."""

    def function(S, V):
        return jnp.sum(C * (V[:, :2] @ V[:, :2].T))

    def every_way(M):
        by_sign = jax.grad(lambda M: jnp.sum(C * (jnp.eye(3) - matrix_sign((M + M.T) / 2 - 2 * jnp.eye(3))) / 2))
        of_jax = jax.grad(lambda M: function(*jnp.linalg.eigh(M)))(M[0])
        return through("symmetric_eigen", function)(M), jax.vmap(by_sign)(M), of_jax

    found, expected, of_jax = run(every_way, DEGENERATE)
    assert (np.abs(expected).max((1, 2)) > 0.1).all()
    np.testing.assert_allclose(found, expected, atol=1e-13)
    assert np.isnan(of_jax).all()


of_both = through("symmetric_eigen", lambda S, V: jnp.sum(C * (V @ jnp.diag(S) @ V.T)))


def test_equal_eigenvalues_in_a_function_that_separates_them():
    """⟨C, V h(S) Vᵀ⟩ needs the limit of (h(s_j) − h(s_i)) / (s_j − s_i), which no cotangent carries: within the group,
    that element is 0 where it should be C's."""
    (_, Vs), found = run(lambda M: (rules.symmetric_eigen_forward(M)[0], of_both(M)), DEGENERATE)
    for V, dX in zip(Vs, found, strict=True):
        expected = V.T @ symmetric(C) @ V
        assert abs(expected[0, 1]) > 0.01
        expected[0, 1] = expected[1, 0] = 0
        np.testing.assert_allclose(V.T @ dX @ V, expected, atol=1e-13)


def test_close_eigenvalues_are_not_equal():
    """A gap of 1e-9 is no rounding in float64: V diag(S) Vᵀ is X, and its gradient C, to the digits that are left."""
    M = TURNED @ np.diag([1.0, 1 + 1e-9, 2.5]) @ TURNED.T
    found = run(of_both, M[None])
    np.testing.assert_allclose(found[0], symmetric(C), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 5)], ids=str)
def test_equal_singular_values(shape):
    """The sum of squares, the projector onto the left vectors of the two equal ones, and that onto the right ones."""
    U, V = orthogonal(shape[0])[:, :3], orthogonal(shape[1])[:, :3]
    M = U @ np.diag([2.5, 2.5, 1.0]) @ V.T
    left, right = (RNG.standard_normal((n, n)) for n in shape)

    def projector(M):
        return (jnp.eye(len(M)) + matrix_sign(M @ M.T - 3 * jnp.eye(len(M)))) / 2

    rows = [  # a function of the factors, the same of the matrix
        (lambda U, S, Vt: jnp.sum(S**2), lambda M: jnp.sum(M**2)),
        (lambda U, S, Vt: jnp.sum(left * (U[:, :2] @ U[:, :2].T)), lambda M: jnp.sum(left * projector(M))),
        (lambda U, S, Vt: jnp.sum(right * (Vt[:2].T @ Vt[:2])), lambda M: jnp.sum(right * projector(M.T))),
    ]
    outcomes = run(lambda M: [(through("svd", f)(M[None])[0], jax.grad(g)(M)) for f, g in rows], M)
    for (found, expected), atol in zip(outcomes, (1e-13, 1e-12, 1e-12), strict=True):
        np.testing.assert_allclose(found, expected, atol=atol)


def test_singular_values_of_zero():
    """A function of the others has its gradient; at the vectors of a 0 the gradient is finite."""
    U, V = orthogonal(4)[:, :3], orthogonal(3)
    M = np.stack([U @ np.diag([2.0, 1.0, 0.0]) @ V.T, np.zeros((4, 3))])
    functions = lambda U, S, Vt: jnp.sum(S[:2]), lambda U, S, Vt: jnp.sum(U + U**3) + jnp.sum(Vt**3)
    of_values, of_vectors = run(lambda M: [through("svd", function)(M) for function in functions], M)
    np.testing.assert_allclose(of_values[0], U[:, :2] @ V[:, :2].T, atol=1e-13)
    assert np.isfinite(of_vectors).all()


def test_a_decomposition_composes_to_its_matrix():
    check_composition("svd", lambda U, S, Vt: U @ jnp.diag(S) @ Vt, X[:1], C)
    check_composition("symmetric_eigen", lambda S, V: V @ jnp.diag(S) @ V.T, SPD[:1], symmetric(C))


def test_svd_backward_of_any_size():
    """F is of the size of 1 / X², which overflows or underflows; dX is of the size of 1 / X."""
    sizes = np.array([1, 1e-30, 1e30], np.float32)
    M = sizes[:, None, None, None] * RNG.standard_normal((2, 3, 3)).astype(np.float32)
    dU, dVt = (np.broadcast_to(RNG.standard_normal((2, 3, 3)).astype(np.float32), M.shape) for _ in range(2))
    _, dX = run(lambda M: passes("svd", (dU, np.zeros((3, 2, 3), np.float32), dVt), M), M)
    for size, scaled in zip(sizes[1:], dX[1:], strict=True):
        np.testing.assert_allclose(scaled * size, dX[0], rtol=0, atol=1e-4 * np.abs(dX[0]).max())
