"""A diagonal plus low rank against PyTorch's dense matrices."""

from rules.linear_algebra.in_torch import NORMAL, B, check_in_torch, torch

d, U = NORMAL[..., 0] ** 2 + 2, NORMAL[..., 1:]


def dense(d, U, V):
    return torch.diag_embed(d) + U @ V.mT


def test_values_and_gradients():
    check_in_torch(
        ("low_rank_solve", {}, lambda d, U, V, B: torch.linalg.solve(dense(d, U, V), B), (d, U, U, B)),
        ("low_rank_log_determinant", {}, lambda *a: torch.linalg.slogdet(dense(*a)), (d, U, U)),
    )
