"""Eigenvalues and singular values against PyTorch."""

from rules.linear_algebra.in_torch import NORMAL, TALL, WIDE, check_in_torch, torch


def svd(X):
    return torch.linalg.svd(X, full_matrices=False)


def test_values_and_gradients():
    check_in_torch(
        ("symmetric_eigen", {}, lambda X: torch.linalg.eigh((X + X.mT) / 2), (NORMAL,)),
        *(("svd", {}, svd, (X,)) for X in (NORMAL, TALL, WIDE)),
    )
