"""What PyTorch's convolutional networks share: kernels and images with the features first."""

import numpy as np

from baselines.torch_ways import tensors


def kernel(K):
    """(height, width, n_in, n_out) as (n_out, n_in, height, width)."""
    return np.transpose(K, (3, 2, 0, 1))


def as_tensors(parameters, x, labels):
    """Parameters and a batch as tensors; images from features last to features first."""
    return tensors(parameters, np.transpose(x, (0, 3, 1, 2)), labels)


def after_flatten(W, features):
    """(n_in, n_out) weights behind a flatten, whose inputs come features first here."""
    side = int((W.shape[0] // features) ** 0.5)
    return np.reshape(W, (side, side, features, -1)).transpose(3, 2, 0, 1).reshape(W.shape[1], -1)
