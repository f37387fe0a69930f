"""Functions of a symmetric matrix against PyTorch, whose own derivative needs distinct eigenvalues."""

from rules.linear_algebra.in_torch import NORMAL, SKEWED, check_in_torch, torch


def through(f):
    def function(X):
        S, V = torch.linalg.eigh((X + X.mT) / 2)
        return V * f(S)[..., None, :] @ V.mT

    return function


def test_values_and_gradients():
    check_in_torch(
        ("symmetric_function", {"f": "sqrt"}, through(torch.sqrt), (SKEWED,)),
        ("symmetric_function", {"f": "log"}, through(torch.log), (SKEWED,)),
        ("symmetric_function", {"f": -0.5}, through(torch.rsqrt), (SKEWED,)),
        ("symmetric_function", {"f": "exp"}, lambda X: torch.linalg.matrix_exp((X + X.mT) / 2), (NORMAL,)),
    )
