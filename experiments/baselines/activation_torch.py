"""Activations of PyTorch."""

import functools

from baselines.torch_ways import leaves as arguments, pullbacks, torch

__all__ = ["arguments", "ways"]


def ways(*, kind, **sizes):
    """Output and pullback."""
    function = getattr(torch.nn.functional, kind)
    return pullbacks(functools.partial(function, dim=-1) if "softmax" in kind else function)
