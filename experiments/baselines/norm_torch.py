"""Layer and RMS norm in PyTorch."""

from baselines.torch_ways import leaves as arguments, pullbacks, torch

__all__ = ["arguments", "ways"]

F = torch.nn.functional


def layer_norm(x, scale, shift):
    """PyTorch's own."""
    return F.layer_norm(x, scale.shape, scale, shift, 1e-5)


def rms_norm(x, scale):
    """PyTorch's own."""
    return F.rms_norm(x, scale.shape, scale, 1e-6)


def ways(*, kind, **sizes):
    """Output and pullback."""
    return pullbacks({"layer_norm": layer_norm, "rms_norm": rms_norm}[kind])
