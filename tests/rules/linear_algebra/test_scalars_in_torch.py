"""Scalars of a matrix against PyTorch."""

import numpy as np
from rules.linear_algebra.in_torch import NORMAL, TALL, check_in_torch, torch
from rules.linear_algebra.matrices import passes, run


def test_values_and_gradients():
    check_in_torch(
        ("trace", {}, lambda X: X.diagonal(dim1=-2, dim2=-1).sum(-1), (NORMAL,)),
        ("determinant", {}, torch.linalg.det, (NORMAL,)),
        ("log_determinant", {}, torch.linalg.slogdet, (NORMAL,)),
    )


def test_a_determinant_at_any_rank():
    """At singular matrices PyTorch's gradient is the cofactor matrix, as ours."""
    M = np.stack([TALL[0].T[:, :rank] @ TALL[1][:rank] for rank in range(4)])
    _, dX = run(lambda M: passes("determinant", np.ones(4), M), M)
    leaf = torch.tensor(M, requires_grad=True)
    torch.linalg.det(leaf).sum().backward()
    np.testing.assert_allclose(dX, leaf.grad, atol=1e-12)
