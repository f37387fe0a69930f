"""Cholesky and QR against PyTorch."""

from rules.linear_algebra.in_torch import NORMAL, SKEWED, TALL, WIDE, check_in_torch, torch


def test_values_and_gradients():
    check_in_torch(
        ("cholesky", {}, lambda X: torch.linalg.cholesky((X + X.mT) / 2), (SKEWED,)),
        *(("qr", {}, torch.linalg.qr, (X,)) for X in (NORMAL, TALL, WIDE)),
    )
