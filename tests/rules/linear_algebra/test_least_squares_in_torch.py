"""Least squares and the pseudo-inverse against PyTorch."""

import numpy as np
from rules.linear_algebra.in_torch import REGULAR, TALL, WIDE, check_in_torch, torch


def least_squares(A, B):
    return torch.linalg.lstsq(A, B).solution


def test_values_and_gradients():
    """At low rank too, where PyTorch's gradient is that along matrices of that rank, as ours."""
    low = TALL[..., :2] @ TALL[..., :2, :2]
    check_in_torch(
        ("least_squares", {}, least_squares, (TALL, TALL[..., :2] ** 2)),
        ("least_squares", {}, least_squares, (WIDE, WIDE[..., :1] ** 2)),
        ("pseudo_inverse", {}, torch.linalg.pinv, (TALL,)),
        ("pseudo_inverse", {}, torch.linalg.pinv, (WIDE,)),
        ("pseudo_inverse", {}, torch.linalg.pinv, (REGULAR,)),
        ("pseudo_inverse", {}, torch.linalg.pinv, (np.concatenate([low, low], -1),)),
    )
