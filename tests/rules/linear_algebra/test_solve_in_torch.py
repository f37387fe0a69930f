"""Inverse and linear systems against PyTorch."""

from rules.linear_algebra.in_torch import NORMAL, REGULAR, SKEWED, B, check_in_torch, torch


def triangular(**options):
    return lambda A, B: torch.linalg.solve_triangular(A, B, **options)


def by_cholesky(A, B):
    return torch.cholesky_solve(B, torch.linalg.cholesky((A + A.mT) / 2))


def test_values_and_gradients():
    upper, unit = {"lower": False}, {"unit_diagonal": True}
    check_in_torch(
        ("inverse", {}, torch.linalg.inv, (REGULAR,)),
        ("solve", {}, torch.linalg.solve, (REGULAR, B)),
        ("triangular_solve", {}, triangular(upper=False), (REGULAR, B)),
        ("triangular_solve", upper, triangular(upper=True), (REGULAR, B)),
        ("triangular_solve", unit, triangular(upper=False, unitriangular=True), (NORMAL, B)),
        ("triangular_solve", upper | unit, triangular(upper=True, unitriangular=True), (NORMAL, B)),
        ("positive_definite_solve", {}, by_cholesky, (SKEWED, B)),
    )
