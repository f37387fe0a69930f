"""The matrix functions' pullbacks: right ones, and the mistakes that have been made before."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_right, in_turn
from jax.numpy import linalg

import handgrad as hg

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6))
A, B = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 2))
S = A @ A.T + 4 * np.eye(4)
C = A + 1j * RNG.standard_normal((4, 4))
QUICK = {"control": False}
NUMBERS = {"control": False, "contracts": False, "transforms": ()}


def inv_forward(A):
    Y = linalg.inv(A)
    return Y, Y


def inv_backward(Y, dY):
    return (-Y.mT @ dY @ Y.mT,)


def solve_forward(A, B):
    X = linalg.solve(A, B)
    return X, (A, X)


def solve_backward(residuals, dX):
    A, X = residuals
    dB = linalg.solve(A.T, dX)
    return -dB @ X.T, dB


def slogdet_forward(A):
    return tuple(linalg.slogdet(A)), A


def slogdet_backward(A, cotangents):
    return (cotangents[1] * linalg.inv(A).T,)


def cholesky_forward(A):
    L = linalg.cholesky(A)
    return L, L


def cholesky_backward(L, dL, symmetric=True):
    P = jnp.tril(L.T @ dL)
    P = P - jnp.diag(jnp.diag(P)) / 2
    dA = linalg.solve(L.T, linalg.solve(L.T, P.T).T)
    return ((dA + dA.T) / 2 if symmetric else dA,)


def eigh_forward(A):
    w, V = linalg.eigh(A)
    return (w, V), (w, V)


def eigh_backward(residuals, cotangents):
    (w, V), (dw, dV) = residuals, cotangents
    same = jnp.eye(w.size, dtype=w.dtype)
    dA = V @ (jnp.diag(dw) + (1 - same) / (w[None, :] - w[:, None] + same) * (V.T @ dV)) @ V.T
    return ((dA + dA.T) / 2,)


def qr_forward(A):
    Q, R = linalg.qr(A)
    return (Q, R), (Q, R)


def qr_backward(residuals, cotangents):
    (Q, R), (dQ, dR) = residuals, cotangents
    M = R @ dR.T - dQ.T @ Q
    return (linalg.solve(R, (dQ + Q @ (jnp.tril(M) + jnp.tril(M, -1).T)).T).T,)


def singular_forward(A):
    U, s, Vt = linalg.svd(A, full_matrices=False)
    return s, (U, Vt)


def singular_backward(residuals, ds):
    U, Vt = residuals
    return (U @ jnp.diag(ds) @ Vt,)


def norm_forward(x):
    y = linalg.norm(x)
    return y, (x, y)


def norm_backward(residuals, dy):
    x, y = residuals
    return (dy * x / y,)


RULES = {
    "inv, batched": (inv_forward, inv_backward, (RNG.standard_normal((2, 3, 3)),)),
    "solve": (solve_forward, solve_backward, (A, B)),
    "slogdet": (slogdet_forward, slogdet_backward, (A,)),
    "cholesky": (cholesky_forward, cholesky_backward, (S,)),
    "eigh": (eigh_forward, eigh_backward, (S,)),
    "qr": (qr_forward, qr_backward, (A,)),
    "singular values": (singular_forward, singular_backward, (A[:, :3],)),
    "norm": (norm_forward, norm_backward, (B,)),
}


@pytest.mark.parametrize(("name", "dtype"), in_turn(RULES))
def test_a_pullback_of_linear_algebra_is_right(name, dtype):
    forward, backward, args = RULES[name]
    check_right(hg.check_rule(forward, backward, *args, dtype=dtype, **QUICK))


@pytest.mark.parametrize(
    ("says", "forward", "backward", "args"),
    [
        ("A: the gradient of B", solve_forward, lambda r, dX: solve_backward(r, dX)[::-1], (A, S[::-1])),
        ("B: sign flipped", solve_forward, lambda r, dX: (solve_backward(r, dX)[0], -solve_backward(r, dX)[1]), (A, B)),
        ("A: half of what it should be", cholesky_forward, lambda L, dL: (cholesky_backward(L, dL)[0] / 2,), (S,)),
        ("A: right on the diagonal only", cholesky_forward, lambda L, dL: cholesky_backward(L, dL, False), (S,)),
        ("A: ignores the cotangent of output 1", eigh_forward, lambda r, d: eigh_backward(r, (d[0], 0 * d[1])), (S,)),
        ("A: off by", inv_forward, lambda Y, dY: (-Y @ dY @ Y,), (A,)),
        ("x: NaN in 1 of 3 elements", lambda x: (x.prod(), x), lambda x, d: (d * x.prod() / x,), (np.r_[0.0, 2, 3],)),
    ],
    ids=["swapped", "sign", "half", "not symmetric", "eigenvalues alone", "no transpose", "0/0"],
)
def test_an_old_mistake_is_found(says, forward, backward, args):
    report = hg.check_rule(forward, backward, *args, **NUMBERS)
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert says in [f"{row.leaf}: {row.diagnosis}" for row in report.rows] or says in report.reason, str(report)


@pytest.mark.parametrize(
    ("matrix", "gradient", "reason"),
    [
        (A, lambda A: linalg.inv(A).T, ""),
        (A, linalg.inv, "A: transposed"),
        (A, lambda A: -linalg.inv(A).T, "A: sign flipped"),
        (C, lambda A: linalg.inv(A).T, ""),
        (C, lambda A: linalg.inv(A).T.conj(), "A: conjugate missing"),
    ],
    ids=["right", "transposed", "sign", "complex", "conjugate"],
)
def test_the_gradient_of_a_logarithm_of_a_determinant(matrix, gradient, reason):
    settings = NUMBERS if reason else QUICK
    report = hg.check_function(lambda A: linalg.slogdet(A)[1], gradient, matrix, **settings)
    assert (report.verdict, report.reason) == ("FAIL" if reason else "PASS", reason)


def test_a_fourier_transform_is_its_own_transpose():
    def forward(z):
        return jnp.fft.fft(z), None

    z = X + 1j * X[::-1]
    check_right(hg.check_rule(forward, lambda _, dY: (jnp.fft.fft(dY),), z, **QUICK))
    report = hg.check_rule(forward, lambda _, dY: (6 * jnp.fft.ifft(dY),), z, **NUMBERS)
    assert report.reason.startswith("z: conjugate missing")


def test_an_adaptive_step_is_looked_at_with_ones_own_tolerance():
    def steps(x):  # Newton's method, stopped early: right to 1e-9 or so
        y = x
        for _ in range(5):
            y = (y + x / y) / 2
        return y

    x = np.array([1.5, 2.0, 3.0])
    gradient = hg.check_function(lambda x: jnp.sqrt(x).sum(), lambda x: 0.5 / steps(x) * (1 + 1e-8), x, **NUMBERS)
    assert gradient.verdict == "FAIL"
    assert hg.check_function(lambda x: jnp.sqrt(x).sum(), lambda x: 0.5 / steps(x), x, rtol=1e-6, **QUICK).ok
