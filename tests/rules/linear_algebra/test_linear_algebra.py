"""The rules on matrices where rows of the table can't go: singular matrices, equal values, kinks, and bad input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((2, 3, 3)) + 3 * np.eye(3))
B = jnp.asarray(RNG.standard_normal((2, 3, 2)))
SPD = X @ X.mT


def orthogonal(n):
    return np.linalg.qr(RNG.standard_normal((n, n)))[0]


def pull(op, dY, *arguments, **options):
    """Y and the cotangents of one rule."""
    forward, backward = getattr(rules, op)

    @jax.jit
    def both(dY, *arguments):
        Y, residuals = forward(*arguments, **options)
        return Y, backward(residuals, dY, **options)

    return both(dY, *arguments)


def test_an_inverse_is_a_solution():
    """X⁻¹ = solve(X, I), and a positive definite system is a system."""
    dY = jnp.asarray(RNG.standard_normal((2, 3, 3)))
    Y, (dX,) = pull("inverse", dY, X)
    ones = jnp.broadcast_to(jnp.eye(3), (2, 3, 3))
    assert_same((Y, dX), (lambda Y, d: (Y, d[0]))(*pull("solve", dY, X, ones)), 1e-13)
    Y, (dA, dB) = pull("positive_definite_solve", dY, SPD, ones)
    expected, (full, expected_dB) = pull("solve", dY, SPD, ones)
    assert_same((Y, dA, dB), (expected, (full + full.mT) / 2, expected_dB), 1e-11)


def test_what_a_triangular_solve_does_not_read():
    dY = jnp.ones_like(B)
    noise = jnp.triu(jnp.full((3, 3), jnp.nan), 1)[None]
    for options in ({}, {"unit_diagonal": True}):
        unread = noise + jnp.diag(jnp.full(3, jnp.nan))[None] if options else noise
        Y, (dA, dB) = pull("triangular_solve", dY, jnp.where(jnp.isnan(unread), jnp.nan, X), B, **options)
        assert_same((Y, dA, dB), (lambda Y, d: (Y, *d))(*pull("triangular_solve", dY, X, B, **options)))
        assert (jnp.where(jnp.isnan(unread), dA, 0) == 0).all()


def test_each_argument_has_its_own_dtype():
    dY = jnp.ones_like(B)
    for op in ("solve", "triangular_solve", "positive_definite_solve"):
        Y, (dA, dB) = pull(op, dY, SPD.astype(jnp.float32), B)
        assert (Y.dtype, dA.dtype, dB.dtype) == (jnp.float64, jnp.float32, jnp.float64)


def minors(M):
    """The matrix of cofactors, each from its own determinant."""
    n = len(M)
    rest = [[j for j in range(n) if j != i] for i in range(n)]
    return np.array(
        [[(-1) ** (i + j) * np.linalg.det(M[np.ix_(rest[i], rest[j])]) for j in range(n)] for i in range(n)]
    )


@pytest.mark.parametrize("rank", [4, 3, 2, 1, 0])
def test_a_determinants_gradient_at_any_rank(rank):
    M = orthogonal(4) @ np.diag([3.0, -2.0, 1.5, 0.5][:rank] + [0.0] * (4 - rank)) @ orthogonal(4)
    _, (dX,) = pull("determinant", jnp.array([2.0]), jnp.asarray(M)[None])
    np.testing.assert_allclose(dX[0], 2 * minors(M), atol=1e-13)
    assert (np.abs(minors(M)).max() > 0.1) == (rank >= 3)


def test_a_determinants_gradient_where_an_lu_has_no_pivot():
    """Rank 3, and the first column is empty: one cofactor is −1. JAX's own gradient is 0 here."""
    M = np.diag(np.ones(3), 1)
    _, (dX,) = pull("determinant", jnp.ones(1), jnp.asarray(M)[None])
    expected = np.zeros((4, 4))
    expected[3, 0] = -1
    np.testing.assert_allclose(dX[0], expected, atol=1e-15)
    np.testing.assert_allclose(minors(M), expected, atol=1e-15)


def test_a_log_determinant_neither_overflows_nor_hides_a_singular_matrix():
    large = 1e6 * jnp.eye(60)[None]
    (S, Y), (dX,) = pull("log_determinant", (jnp.ones(1), jnp.ones(1)), large)
    assert jnp.isinf(rules.determinant_forward(large)[0][0])
    assert S[0] == 1
    np.testing.assert_allclose(Y[0], 60 * np.log(1e6), rtol=1e-14)
    np.testing.assert_allclose(dX[0], np.eye(60) / 1e6, rtol=1e-14)
    (S, Y), (dX,) = pull("log_determinant", (jnp.ones(1), jnp.ones(1)), jnp.array([[[1.0, 2.0], [2.0, 4.0]]]))
    assert (S[0], Y[0]) == (0, -jnp.inf)
    assert not jnp.isfinite(dX).any()


def test_the_frobenius_norms_kink():
    """0 at X = 0, where JAX's own gradient is NaN; the rest of the batch does not notice."""
    Y, (dX,) = pull("frobenius_norm", jnp.array([2.0, 3.0]), X.at[0].set(0))
    assert Y[0] == 0
    assert (dX[0] == 0).all()
    np.testing.assert_allclose(dX[1], 3 * X[1] / jnp.linalg.norm(X[1]), rtol=1e-14)
    assert jnp.isnan(jax.grad(jnp.linalg.norm)(jnp.zeros((3, 3)))).all()


@pytest.mark.parametrize("values", [(2.0, 1.0, 0.0), (2.0, 0.0, 0.0), (0.0, 0.0, 0.0), (2.0, 2.0, 1.0)], ids=str)
def test_the_nuclear_norms_kink(values):
    """A subgradient everywhere: ⟨dX, X⟩ = Y, no singular value of dX beyond 1; at equal values it is the gradient."""
    U, V = orthogonal(4)[:, :3], orthogonal(3)
    M = jnp.asarray(U @ np.diag(values) @ V.T)[None]
    Y, (dX,) = pull("nuclear_norm", jnp.ones(1), M)
    np.testing.assert_allclose(Y[0], sum(values), atol=1e-14)
    np.testing.assert_allclose(jnp.sum(dX * M), sum(values), atol=1e-14)
    assert jnp.linalg.norm(dX[0], 2) <= 1 + 1e-14
    if values[-1] > 0:
        np.testing.assert_allclose(dX[0], U @ V.T, atol=1e-14)


# Equal values: the vectors are LAPACK's choice, and functions that don't see it have a gradient all the same.


def matrix_sign(M):
    """By Newton's iteration, which knows of no eigenvector: +1 and −1 in each eigenvalue's place."""
    step = lambda M, _: ((M + jnp.linalg.inv(M)) / 2, None)  # noqa: E731
    return jax.lax.scan(step, M, length=12)[0]


VALUES = np.array([1.0, 1.0, 2.5])
TURNED = orthogonal(3)
DEGENERATE = {"diagonal": np.diag(VALUES), "turned": TURNED @ np.diag(VALUES) @ TURNED.T}
degenerate = pytest.mark.parametrize("M", DEGENERATE.values(), ids=DEGENERATE.keys())
C = RNG.standard_normal((3, 3))


def through_eigen(function):
    """The gradient of function(S, V) by hand, on one matrix."""

    def gradient(M):
        (S, V), residuals = rules.symmetric_eigen_forward(jnp.asarray(M)[None])
        dS, dV = jax.grad(function, argnums=(0, 1))(S[0], V[0])
        return rules.symmetric_eigen_backward(residuals, (dS[None], dV[None]))[0][0]

    return gradient


def through_svd(function):
    def gradient(M):
        outputs, residuals = rules.svd_forward(jnp.asarray(M)[None])
        dY = jax.grad(function, argnums=(0, 1, 2))(*(y[0] for y in outputs))
        return rules.svd_backward(residuals, tuple(dy[None] for dy in dY))[0][0]

    return gradient


@degenerate
def test_equal_eigenvalues_in_a_function_of_all_values(M):
    """tr eˣ, whose gradient is eˣ."""
    found = through_eigen(lambda S, V: jnp.sum(jnp.exp(S)))(M)
    np.testing.assert_allclose(found, jax.scipy.linalg.expm(jnp.asarray(M)), rtol=1e-13, atol=1e-13)


@degenerate
def test_equal_eigenvalues_in_a_function_of_their_space(M):
    """⟨C, P⟩, P the projector onto the two equal ones' space; JAX's own gradient is NaN, or noise."""
    function = lambda S, V: jnp.sum(C * (V[:, :2] @ V[:, :2].T))  # noqa: E731
    expected = jax.grad(lambda M: jnp.sum(C * (jnp.eye(3) - matrix_sign((M + M.T) / 2 - 2 * jnp.eye(3))) / 2))(M)
    found = through_eigen(function)(M)
    assert jnp.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-13)
    if M is DEGENERATE["diagonal"]:
        assert jnp.isnan(jax.grad(lambda M: function(*jnp.linalg.eigh(M)))(M)).all()


@degenerate
def test_equal_eigenvalues_in_a_function_that_parts_them(M):
    """⟨C, V h(S) Vᵀ⟩ needs the limit of (h(s_j) − h(s_i)) / (s_j − s_i), which no cotangent carries: within the group,
    that element is 0 where it should be C's."""
    found = through_eigen(lambda S, V: jnp.sum(C * (V @ jnp.diag(S) @ V.T)))(M)
    V = jnp.linalg.eigh(jnp.asarray(M))[1]
    expected = V.T @ ((C + C.T) / 2) @ V
    np.testing.assert_allclose(V.T @ found @ V, expected.at[0, 1].set(0).at[1, 0].set(0), atol=1e-13)
    assert abs(expected[0, 1]) > 0.01


def test_close_eigenvalues_are_not_equal():
    """A gap of 1e-9 is no rounding in float64: V diag(S) Vᵀ is X, and its gradient C, to the digits that are left."""
    M = TURNED @ np.diag([1.0, 1 + 1e-9, 2.5]) @ TURNED.T
    found = through_eigen(lambda S, V: jnp.sum(C * (V @ jnp.diag(S) @ V.T)))(M)
    np.testing.assert_allclose(found, (C + C.T) / 2, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 5)], ids=str)
def test_equal_singular_values(shape):
    """The sum of squares, the projector onto the left vectors of the two equal ones, and that onto the right ones."""
    U, V = orthogonal(shape[0])[:, :3], orthogonal(shape[1])[:, :3]
    M = jnp.asarray(U @ np.diag([2.5, 2.5, 1.0]) @ V.T)
    np.testing.assert_allclose(through_svd(lambda U, S, Vt: jnp.sum(S**2))(M), 2 * M, atol=1e-13)

    def projector(M):
        return (jnp.eye(len(M)) + matrix_sign(M @ M.T - 3 * jnp.eye(len(M)))) / 2

    left, right = (jnp.asarray(RNG.standard_normal((n, n))) for n in shape)
    found = through_svd(lambda U, S, Vt: jnp.sum(left * (U[:, :2] @ U[:, :2].T)))(M)
    np.testing.assert_allclose(found, jax.grad(lambda M: jnp.sum(left * projector(M)))(M), atol=1e-12)
    found = through_svd(lambda U, S, Vt: jnp.sum(right * (Vt[:2].T @ Vt[:2])))(M)
    np.testing.assert_allclose(found, jax.grad(lambda M: jnp.sum(right * projector(M.T)))(M), atol=1e-12)


def test_singular_values_of_zero():
    """A function of the others has its gradient; vectors of no value have none."""
    U, V = orthogonal(4)[:, :3], orthogonal(3)
    M = jnp.asarray(U @ np.diag([2.0, 1.0, 0.0]) @ V.T)
    np.testing.assert_allclose(through_svd(lambda U, S, Vt: jnp.sum(S[:2]))(M), U[:, :2] @ V[:, :2].T, atol=1e-13)
    for some in (M, jnp.zeros((4, 3))):
        assert jnp.isfinite(through_svd(lambda U, S, Vt: jnp.sum(U + U**3) + jnp.sum(Vt**3))(some)).all()


@pytest.mark.parametrize("op", ["qr", "svd", "symmetric_eigen", "cholesky"])
def test_decompositions_compose_to_the_matrix(op):
    """What the factors multiply to is X, so whatever cotangent that product has is X's own (its symmetric part)."""
    M = SPD[0] if op in ("symmetric_eigen", "cholesky") else X[0]
    product = {
        "qr": lambda Q, R: Q @ R,
        "svd": lambda U, S, Vt: U @ jnp.diag(S) @ Vt,
        "symmetric_eigen": lambda S, V: V @ jnp.diag(S) @ V.T,
        "cholesky": lambda L: L @ L.T,
    }[op]
    Y, residuals = getattr(rules, op).forward(M[None])
    parts = tuple(y[0] for y in Y) if isinstance(Y, tuple) else (Y[0],)
    np.testing.assert_allclose(product(*parts), M, atol=1e-13)
    dY = jax.tree.map(lambda d: d[None], jax.vjp(product, *parts)[1](jnp.asarray(C)))
    (dX,) = getattr(rules, op).backward(residuals, dY if isinstance(Y, tuple) else dY[0])
    np.testing.assert_allclose(dX[0], (C + C.T) / 2 if len(parts) == 1 or op == "symmetric_eigen" else C, atol=1e-12)


def test_a_large_cotangent_of_an_exponential():
    """The block matrix never sees its size: no squarings for it, no digits lost, no NaN; and a zero stays one."""
    dY = jnp.asarray(RNG.standard_normal((2, 3, 3)))
    _, (unit,) = pull("matrix_exponential", dY, X)
    for size in (2.0**40, 2.0**-40, 0.0):
        _, (dX,) = pull("matrix_exponential", size * dY, X)
        assert_same(dX, size * unit, 1e-14)


def test_exponentials_known_in_closed_form():
    dY = jnp.asarray(RNG.standard_normal((1, 3, 3)))
    Y, (dX,) = pull("matrix_exponential", dY, jnp.zeros((1, 3, 3)))
    assert_same((Y, dX), (jnp.eye(3)[None], dY), 1e-15)
    s = np.array([0.5, -1.0, 2.0])
    Y, (dX,) = pull("matrix_exponential", dY, jnp.diag(jnp.asarray(s))[None])
    slopes = [[np.exp(a) if a == b else (np.exp(a) - np.exp(b)) / (a - b) for a in s] for b in s]
    assert_same((Y, dX), (jnp.diag(jnp.exp(s))[None], dY * jnp.asarray(slopes)[None]), 1e-13)


def test_a_rotations_exponential():
    """exp [[0, −a], [a, 0]] turns by a, and its slope turns by a quarter more."""
    a = 0.7
    Y, (dX,) = pull("matrix_exponential", jnp.array([[[1.0, 0.0], [0.0, 1.0]]]), jnp.array([[[0.0, -a], [a, 0.0]]]))
    np.testing.assert_allclose(Y[0], [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]], atol=1e-15)
    np.testing.assert_allclose(dX[0, 1, 0] - dX[0, 0, 1], -2 * np.sin(a), atol=1e-15)


# Bad input.

SQUARE = ("inverse", "trace", "determinant", "log_determinant", "cholesky", "symmetric_eigen", "matrix_exponential")
SYSTEMS = ("solve", "triangular_solve", "positive_definite_solve")
ANY = ("frobenius_norm", "nuclear_norm", "qr", "svd")


def refusal(function, *arguments):
    with pytest.raises(hg.InputError) as raised:
        function(*arguments)
    return str(raised.value)


@pytest.mark.parametrize("op", SQUARE)
def test_a_matrix_that_is_not_square(op):
    forward = getattr(rules, op).forward
    assert refusal(forward, jnp.ones((2, 3, 4))) == (
        f"{op}_forward: X must be square, (batch, ..., n, n), got float64 (2, 3, 4)"
    )
    message = f"{op}_forward: X must have shape (batch, ..., n, n), got float64 (3, 3)"
    assert refusal(forward, jnp.ones((3, 3))) == message


@pytest.mark.parametrize("op", ANY)
def test_a_matrix_without_a_batch(op):
    message = f"{op}_forward: X must have shape (batch, ..., m, n), got float64 (3, 4)"
    assert refusal(getattr(rules, op).forward, jnp.ones((3, 4))) == message


@pytest.mark.parametrize("op", SYSTEMS)
def test_two_sides_that_do_not_meet(op):
    forward = getattr(rules, op).forward
    assert refusal(forward, jnp.ones((2, 3, 4)), B) == (
        f"{op}_forward: A must be square, (batch, ..., n, n), got float64 (2, 3, 4)"
    )
    assert refusal(forward, X, jnp.ones((2, 3))) == (
        f"{op}_forward: B must have shape (batch, ..., n, k), got float64 (2, 3)"
    )
    for shape in ((2, 4, 2), (3, 3, 2), (1, 3, 2), (2, 1, 3, 2)):
        found = refusal(forward, X, jnp.ones(shape))
        assert found == f"{op}_forward: B must have shape (2, 3, {shape[-1]}) to meet A (2, 3, 3), got float64 {shape}"
    assert "B must have a floating-point dtype, got int64" in refusal(forward, X, jnp.ones((2, 3, 2), int))


@pytest.mark.parametrize(("op", "names"), [("log_determinant", "dS, dY"), ("qr", "dQ, dR"), ("svd", "dU, dS, dVt")])
def test_a_cotangent_for_each_output(op, names):
    Y, residuals = getattr(rules, op).forward(X)
    backward = getattr(rules, op).backward
    for wrong, got in ((jnp.ones((2, 3, 3)), "float64 (2, 3, 3)"), (Y[:1], "tuple"), (list(Y), "list")):
        message = f"{op}_backward: the cotangent must be a tuple ({names}), got {got}"
        assert refusal(backward, residuals, wrong) == message
    for i, name in enumerate(names.split(", ")):
        dY = tuple(jnp.ones((1, *y.shape)) if i == j else y for j, y in enumerate(Y))
        assert f"{name} must be the cotangent of {name[1:]}, float64 {Y[i].shape}" in refusal(backward, residuals, dY)


@pytest.mark.parametrize("op", [*SQUARE, *ANY, *SYSTEMS])
def test_an_empty_batch(op):
    arguments = (X[:0], B[:0]) if op in SYSTEMS else (X[:0],)
    Y, residuals = getattr(rules, op).forward(*arguments)
    cotangents = getattr(rules, op).backward(residuals, Y)
    assert [c.shape for c in cotangents] == [a.shape for a in arguments]


def test_brute_force_of_the_cofactors_oracle():
    """Leibniz' sum over permutations has the same gradient as the minors that these tests compare with."""
    M = RNG.standard_normal((3, 3))

    def leibniz(M):
        return sum(
            np.linalg.det(np.eye(3)[list(p)]) * M[0, p[0]] * M[1, p[1]] * M[2, p[2]]
            for p in itertools.permutations(range(3))
        )

    np.testing.assert_allclose(jax.grad(leibniz)(M), minors(M), rtol=1e-12)


@pytest.mark.parametrize("size", [1e-36, 1e-30, 1e30, 1e37])
def test_frobenius_norm_of_any_size(size):
    """The squares don't fit, the norm does; nor does dY / Y where dY is large and Y small."""
    X = jnp.asarray([[[3.0, 0.0], [0.0, -4.0]]], jnp.float32)
    Y, residuals = rules.frobenius_norm_forward(X * jnp.float32(size))
    np.testing.assert_allclose(Y, [5 * size], rtol=1e-6)
    (dX,) = rules.frobenius_norm_backward(residuals, jnp.asarray([1e30], jnp.float32))
    np.testing.assert_allclose(dX, 1e30 / 5 * X, rtol=1e-6)


@pytest.mark.parametrize("n", [3, 5])
def test_determinant_of_rows_of_any_size(n):
    """Products of some of the pivots don't fit, the determinant and some cofactors do."""
    rng = np.random.default_rng(0)
    sizes = 10.0 ** np.array([25, 25, -25, -24, 0])[[0, 1, 3] if n == 3 else slice(None)]
    X = jnp.asarray(sizes[:, None] * rng.standard_normal((2, n, n)), jnp.float32)
    exact = np.asarray(X, np.float64)
    det = np.linalg.det(exact)
    Y, residuals = rules.determinant_forward(X)
    np.testing.assert_allclose(Y, det, rtol=1e-5)
    (dX,) = rules.determinant_backward(residuals, jnp.ones_like(Y))
    cofactors = det[:, None, None] * np.swapaxes(np.linalg.inv(exact), -1, -2)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(dX, cofactors.astype(np.float32), rtol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_svd_backward_of_any_size(size):
    """F has the square of X's size; dX, of the size of 1 / X, fits."""
    X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 3)), jnp.float32)
    dY = tuple(
        jnp.asarray(np.random.default_rng(1).standard_normal(s), jnp.float32) for s in ((2, 3, 3), (2, 3), (2, 3, 3))
    )
    no_dS = dY[0], jnp.zeros_like(dY[1]), dY[2]
    (one,) = rules.svd_backward(rules.svd_forward(X)[1], no_dS)
    (other,) = rules.svd_backward(rules.svd_forward(X * jnp.float32(size))[1], no_dS)
    np.testing.assert_allclose(other * jnp.float32(size), one, rtol=0, atol=1e-4 * float(jnp.abs(one).max()))


def test_an_infinite_element_makes_its_matrix_nan():
    """LAPACK's SVD of it would never return."""
    X = np.stack([np.eye(3), np.eye(3)])
    X[0, 0, 1] = np.inf

    @jax.jit
    def run(X):
        _, of_determinant = rules.determinant_forward(X)
        _, of_norm = rules.nuclear_norm_forward(X)
        (_, S, _), _ = rules.svd_forward(X)
        return (
            S,
            rules.determinant_backward(of_determinant, jnp.ones(2)),
            rules.nuclear_norm_backward(of_norm, jnp.ones(2)),
        )

    for found in jax.tree.leaves(run(X)):
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()
