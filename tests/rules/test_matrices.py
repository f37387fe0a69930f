"""What all rules on matrices have in common: what they refuse, single matrices and vectors, complex numbers, empty
batches, infinite elements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.numpy import linalg
from rules.linear_algebra.matrices import ANY, RNG, SPD, SQUARE, SYSTEMS, B, X, passes, run

import handgrad as hg
from handgrad import rules
from handgrad.cases._matrices import logarithm, square_root

ONE = {  # op -> jnp's, of one square matrix
    "inverse": linalg.inv,
    "trace": lambda X: jnp.trace(X, axis1=-2, axis2=-1),
    "determinant": linalg.det,
    "log_determinant": lambda X: tuple(linalg.slogdet(X)),
    "frobenius_norm": lambda X: linalg.norm(X, axis=(-2, -1)),
    "nuclear_norm": lambda X: linalg.norm(X, "nuc", axis=(-2, -1)),
    "cholesky": linalg.cholesky,
    "symmetric_eigen": lambda X: tuple(linalg.eigh(X)),
    "svd": lambda X: tuple(linalg.svd(X, full_matrices=False)),
    "matrix_exponential": jax.scipy.linalg.expm,
}


def definite(A, B):
    return linalg.solve((A + A.conj().mT) / 2, B)


def normal_equations(X):
    Xh = X.conj().mT
    return linalg.inv(Xh @ X) @ Xh if X.shape[-2] >= X.shape[-1] else Xh @ linalg.inv(X @ Xh)


def sylvester(A, B, C):
    K = jnp.kron(jnp.eye(len(B)), A) + jnp.kron(B.T, jnp.eye(len(A)))
    return linalg.solve(K, C.T.ravel()).reshape(C.T.shape).T


def discrete_lyapunov(A, Q):
    """By its series."""
    Y = Q
    for _ in range(6):
        Y, A = Y + A @ Y @ A.conj().mT, A @ A
    return Y


def refusal(function, *arguments):
    with pytest.raises(hg.InputError) as raised:
        function(*arguments)
    return str(raised.value)


@pytest.mark.parametrize("op", SQUARE)
def test_a_matrix_that_is_not_square(op):
    forward = getattr(rules, op).forward
    message = f"{op}_forward: X must be square, (..., n, n), got float64 (2, 3, 4)"
    assert refusal(forward, np.ones((2, 3, 4))) == message
    assert refusal(forward, np.ones(3)) == f"{op}_forward: X must have shape (..., n, n), got float64 (3,)"


@pytest.mark.parametrize("op", ANY)
def test_what_is_no_matrix(op):
    message = f"{op}_forward: X must have shape (..., m, n), got float64 (3,)"
    assert refusal(getattr(rules, op).forward, np.ones(3)) == message


@pytest.mark.parametrize("op", SYSTEMS)
def test_two_sides_that_do_not_match(op):
    forward = getattr(rules, op).forward
    message = f"{op}_forward: A must be square, (..., n, n), got float64 (2, 3, 4)"
    assert refusal(forward, np.ones((2, 3, 4)), B) == message
    for shape in ((2, 4, 2), (3, 3, 2), (1, 3, 2)):
        message = f"{op}_forward: B must have shape (2, 3, {shape[-1]}) to match A (2, 3, 3), got float64 {shape}"
        assert refusal(forward, X, np.ones(shape)) == message
    message = f"{op}_forward: B must have shape (2, 3) to match A (2, 3, 3), got float64 (3, 3)"
    assert refusal(forward, X, np.ones((3, 3))) == message
    for shape in ((3,), (2, 1, 3, 2)):
        message = f"{op}_forward: B must have shape (..., n, k) or (..., n) to match A (2, 3, 3), got float64 {shape}"
        assert refusal(forward, X, np.ones(shape)) == message
    assert "B must have a floating-point or complex dtype, got int64" in refusal(forward, X, np.ones((2, 3, 2), int))


@pytest.mark.parametrize(("op", "names"), [("log_determinant", "dS, dY"), ("qr", "dQ, dR"), ("svd", "dU, dS, dVt")])
def test_a_cotangent_for_each_output(op, names):
    forward, backward = getattr(rules, op)
    Y, residuals = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(forward, X))
    for wrong, got in ((np.ones((2, 3, 3)), "float64 (2, 3, 3)"), (Y[:1], "tuple"), (list(Y), "list")):
        message = f"{op}_backward: the cotangent must be a tuple ({names}), got {got}"
        assert refusal(backward, residuals, wrong) == message
    for i, name in enumerate(names.split(", ")):
        dY = tuple(np.ones((1, *y.shape)) if i == j else y for j, y in enumerate(Y))
        assert f"{name} must be the cotangent of {name[1:]}, float64 {Y[i].shape}" in refusal(backward, residuals, dY)


SINGLE = {  # op -> jnp's, arguments without a batch
    **{op: (function, (X[0],)) for op, function in ONE.items()},
    "solve": (linalg.solve, (X[0], B[0, :, 0])),
    "triangular_solve": (lambda A, B: jax.scipy.linalg.solve_triangular(A, B, lower=True), (X[0], B[0, :, 0])),
    "positive_definite_solve": (definite, (SPD[0], B[0, :, 0])),
    "least_squares": (lambda A, B: linalg.lstsq(A, B)[0], (np.vstack([X[0], B[0].T]), RNG.standard_normal(5))),
    "pseudo_inverse": (linalg.pinv, (X[0, :2],)),
    "qr": (lambda X: tuple(linalg.qr(X)), (X[0, :2],)),
    "symmetric_function": (lambda X, f: jax.scipy.linalg.expm((X + X.T) / 2), (X[0],)),
    "sylvester": (sylvester, (X[0], X[1], X[0])),
}
OPTIONS = {"symmetric_function": {"f": "exp"}}


def cotangent(shape, dtype):
    ramp = np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)
    return jnp.asarray(np.cos(ramp) + 1j * np.sin(2 * ramp) if np.issubdtype(dtype, complex) else np.cos(ramp), dtype)


def by_both(op, reference, arguments):
    """(Y, *cotangents) by the rule and by jax.vjp of the reference, for a cotangent that is not constant."""
    options = OPTIONS.get(op, {})
    Y, pullback = jax.vjp(lambda *a: reference(*a, **options), *arguments)
    dY = jax.tree.map(lambda y: cotangent(y.shape, y.dtype), Y)
    return passes(op, dY, *arguments, **options), (Y, *pullback(dY))


def assert_near(found, rtol=1e-12):
    for op, (mine, theirs) in found.items():
        pairs = list(zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True))
        assert [(a.shape, a.dtype) for a, _ in pairs] == [(b.shape, b.dtype) for _, b in pairs], op
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max(initial=0), err_msg=op)


def test_a_single_matrix_and_a_vector():
    """Shapes and gradients as jnp.linalg's; vectors for a batch are the columns of one right-hand side."""

    def of_vectors(op, B):
        Y, dA, dB = passes(op, B[..., :1], SPD, B[..., 1:])
        return passes(op, B[..., 0], SPD, B[..., 1]), (Y[..., 0], dA, dB[..., 0])

    def run_all(given, B):
        both = {op: by_both(op, SINGLE[op][0], arguments) for op, arguments in given.items()}
        return both | {f"{op} of vectors": of_vectors(op, B) for op in SYSTEMS}

    assert_near(run(run_all, {op: arguments for op, (_, arguments) in SINGLE.items()}, B))


def test_complex_matrices():
    """The cotangents that jax.vjp of jnp.linalg has, phases of vectors included."""
    imaginary, more, skew = np.random.default_rng(1).standard_normal((3, *X.shape))
    Z, Bz = X + 1j * imaginary, B + 1j * more[..., :2]
    hermitian = Z @ Z.conj().swapaxes(-1, -2) + skew - skew.swapaxes(-1, -2)
    tall, wide = np.concatenate([Z, Bz.swapaxes(-1, -2)], -2), Z[..., :2, :]
    rows = {
        **{op: (function, (Z,)) for op, function in ONE.items()},
        "cholesky": (linalg.cholesky, (hermitian,)),
        "symmetric_eigen": (lambda X: tuple(linalg.eigh(X)), (hermitian,)),
        "solve": (linalg.solve, (Z, Bz)),
        "triangular_solve": (lambda A, B: jax.scipy.linalg.solve_triangular(A, B, lower=True), (Z, Bz)),
        "positive_definite_solve": (definite, (hermitian, Bz)),
        "qr tall": (lambda X: tuple(linalg.qr(X)), (tall,)),
        "qr wide": (lambda X: tuple(linalg.qr(X)), (wide,)),
        "svd tall": (lambda X: tuple(linalg.svd(X, full_matrices=False)), (tall,)),
        "svd wide": (lambda X: tuple(linalg.svd(X, full_matrices=False)), (wide,)),
        "pseudo_inverse tall": (normal_equations, (tall,)),
        "pseudo_inverse wide": (normal_equations, (wide,)),
        "least_squares tall": (lambda A, B: normal_equations(A) @ B, (tall, tall)),
        "least_squares wide": (lambda A, B: normal_equations(A) @ B, (wide, wide)),
        "symmetric_function": (lambda X, f: jax.scipy.linalg.expm((X + X.conj().mT) / 2), (Z,)),
        "matrix_square_root": (square_root, (Z + 2 * np.eye(3),)),
        "matrix_logarithm": (logarithm, (Z + 2 * np.eye(3),)),
        "sylvester": (jax.vmap(sylvester), (Z, Z + 1, Z)),
        "lyapunov": (jax.vmap(lambda A, Q: sylvester(A, A.conj().T, Q)), (Z, Z)),
        "discrete_lyapunov": (discrete_lyapunov, (Z / 10, Z)),
        "solve of one that is real": (linalg.solve, (X, Bz)),
    }

    def run_all(given):
        return {op: by_both(op.split()[0], rows[op][0], arguments) for op, arguments in given.items()}

    ops = list(rows)
    for start in range(0, len(ops), 8):  # one program of all takes XLA longer
        assert_near(run(run_all, {op: rows[op][1] for op in ops[start : start + 8]}), 1e-11)


def test_an_empty_batch():
    arguments = {op: (X[:0], B[:0]) if op in SYSTEMS else (X[:0],) for op in (*SQUARE, *ANY, *SYSTEMS)}

    def empty(op):
        Y, residuals = getattr(rules, op).forward(*arguments[op])
        return getattr(rules, op).backward(residuals, Y)

    found = run(lambda: {op: empty(op) for op in arguments})
    for op, cotangents in found.items():
        assert [c.shape for c in cotangents] == [a.shape for a in arguments[op]], op


def test_an_infinite_element_makes_its_matrix_nan():
    """LAPACK's SVD would not return."""
    M = np.stack([np.eye(3), np.eye(3)])
    M[0, 0, 1] = np.inf

    def gradients(M):
        (_, S, _), _ = rules.svd_forward(M)
        return S, passes("determinant", np.ones(2), M)[1], passes("nuclear_norm", np.ones(2), M)[1]

    for found in run(gradients, M):
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()
