"""Convolutions of PyTorch, on images with features first."""

import numpy as np

from baselines.layouts import kernel
from baselines.torch_ways import leaves, pullbacks, torch

F = torch.nn.functional


def ways(*, window, strides=1, groups=1, transposed=False, **sizes):
    """Output and pullback."""
    around = (window - 1) // 2

    def convolve(x, k, b):
        if strides == 1:
            return F.conv2d(x, k, b, 1, around, 1, groups)
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), k, b, strides, 0, 1, groups)  # "SAME", on even sides

    def transpose(x, k, b):
        return F.conv_transpose2d(x, k, b, strides)[..., :-1, :-1]

    return pullbacks(transpose if transposed else convolve)


def features_first(a):
    """Images."""
    return np.transpose(a, (0, 3, 1, 2))


def arguments(X, K, b, dY):
    """Features first, and kernels (n_out, n_in, height, width)."""
    return leaves(features_first(X), kernel(K), b, features_first(dY))


def results(theirs):
    """Likewise."""
    Y, (dX, dK, db) = theirs
    return features_first(Y), (features_first(dX), kernel(dK), db)
