"""The matrix exponential against PyTorch."""

import numpy as np
from rules.linear_algebra.in_torch import NORMAL, check_in_torch, torch


def test_values_and_gradients():
    """Without and with squarings."""
    X = np.concatenate([NORMAL, 4 * NORMAL])
    check_in_torch(("matrix_exponential", {}, torch.linalg.matrix_exp, (X,)))
