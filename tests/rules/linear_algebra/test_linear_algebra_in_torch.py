"""PyTorch's linear algebra: values and all gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal((2, 3, 3))
REGULAR = NORMAL + 3 * np.eye(3)
POSITIVE = NORMAL @ NORMAL.swapaxes(-1, -2) + np.eye(3)
SKEWED = POSITIVE + NORMAL - NORMAL.swapaxes(-1, -2)  # the same when read as its symmetric part
TALL, WIDE = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 2, 4))
B = RNG.standard_normal((2, 3, 2))


def symmetric(X):
    return (X + X.mT) / 2


def by_cholesky(A, B):
    return torch.cholesky_solve(B, torch.linalg.cholesky(symmetric(A)))


def triangular(**options):
    return lambda A, B: torch.linalg.solve_triangular(A, B, **options)


LINALG = torch.linalg
OPS = {
    "inverse": ("inverse", {}, LINALG.inv, (REGULAR,)),
    "solve": ("solve", {}, LINALG.solve, (REGULAR, B)),
    "triangular": ("triangular_solve", {}, triangular(upper=False), (REGULAR, B)),
    "triangular-upper": ("triangular_solve", {"lower": False}, triangular(upper=True), (REGULAR, B)),
    "triangular-unit": (
        "triangular_solve",
        {"unit_diagonal": True},
        triangular(upper=False, unitriangular=True),
        (NORMAL, B),
    ),
    "triangular-upper-unit": (
        "triangular_solve",
        {"lower": False, "unit_diagonal": True},
        triangular(upper=True, unitriangular=True),
        (NORMAL, B),
    ),
    "positive-definite": ("positive_definite_solve", {}, by_cholesky, (SKEWED, B)),
    "trace": ("trace", {}, lambda X: X.diagonal(dim1=-2, dim2=-1).sum(-1), (NORMAL,)),
    "determinant": ("determinant", {}, LINALG.det, (NORMAL,)),
    "log-determinant": ("log_determinant", {}, LINALG.slogdet, (NORMAL,)),
    "frobenius": ("frobenius_norm", {}, LINALG.matrix_norm, (TALL,)),
    "nuclear-tall": ("nuclear_norm", {}, lambda X: LINALG.matrix_norm(X, "nuc"), (TALL,)),
    "nuclear-wide": ("nuclear_norm", {}, lambda X: LINALG.matrix_norm(X, "nuc"), (WIDE,)),
    "cholesky": ("cholesky", {}, lambda X: LINALG.cholesky(symmetric(X)), (SKEWED,)),
    "eigen": ("symmetric_eigen", {}, lambda X: LINALG.eigh(symmetric(X)), (NORMAL,)),
    "svd": ("svd", {}, lambda X: LINALG.svd(X, full_matrices=False), (NORMAL,)),
    "svd-tall": ("svd", {}, lambda X: LINALG.svd(X, full_matrices=False), (TALL,)),
    "svd-wide": ("svd", {}, lambda X: LINALG.svd(X, full_matrices=False), (WIDE,)),
    "qr": ("qr", {}, LINALG.qr, (NORMAL,)),
    "qr-tall": ("qr", {}, LINALG.qr, (TALL,)),
    "qr-wide": ("qr", {}, LINALG.qr, (WIDE,)),
    "exponential": ("matrix_exponential", {}, LINALG.matrix_exp, (NORMAL,)),
    "exponential-squared": ("matrix_exponential", {}, LINALG.matrix_exp, (4 * NORMAL,)),
}


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("op", "options", "function", "arguments"), OPS.values(), ids=OPS.keys())
def test_values_and_gradients(op, options, function, arguments):
    """A vector's sign is free: where torch chose the other, its cotangent changes sign too."""
    Y, residuals = getattr(rules, op).forward(*map(jnp.asarray, arguments), **options)
    dY = jax.tree.map(lambda y: jnp.asarray(RNG.standard_normal(y.shape)), Y)
    found = getattr(rules, op).backward(residuals, dY, **options)
    leaves = [torch.tensor(a, requires_grad=True) for a in arguments]
    theirs = function(*leaves)
    theirs = list(theirs) if isinstance(theirs, tuple) else [theirs]
    total = 0
    for mine, expected, dy in zip(jax.tree.leaves(Y), theirs, jax.tree.leaves(dY), strict=True):
        mine, dy = torch.tensor(np.asarray(mine)), torch.tensor(np.asarray(dy))
        signs = torch.ones_like(mine)
        if op in ("svd", "qr", "symmetric_eigen"):
            signs = torch.sign(mine * expected.detach()) + (mine == 0)
        assert relative_error(mine, (signs * expected).detach()) <= 1e-10
        total = total + (signs * expected * dy).sum()
    total.backward()
    for mine, leaf in zip(found, leaves, strict=True):
        assert relative_error(mine, leaf.grad) <= 1e-10


def test_a_determinant_at_any_rank():
    """Torch's gradient at singular matrices: the cofactors, as ours."""
    for rank in range(4):
        M = TALL[0].T[:, :rank] @ TALL[1][:rank]
        leaf = torch.tensor(M, requires_grad=True)
        torch.linalg.det(leaf).backward()
        _, residuals = rules.determinant_forward(jnp.asarray(M)[None])
        (dX,) = rules.determinant_backward(residuals, jnp.ones(1))
        np.testing.assert_allclose(dX[0], leaf.grad, atol=1e-12)
