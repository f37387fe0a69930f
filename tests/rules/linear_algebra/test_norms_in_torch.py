"""Norms of a matrix against PyTorch."""

from rules.linear_algebra.in_torch import TALL, WIDE, check_in_torch, torch


def nuclear(X):
    return torch.linalg.matrix_norm(X, "nuc")


def test_values_and_gradients():
    check_in_torch(
        ("frobenius_norm", {}, torch.linalg.matrix_norm, (TALL,)),
        ("nuclear_norm", {}, nuclear, (TALL,)),
        ("nuclear_norm", {}, nuclear, (WIDE,)),
    )
