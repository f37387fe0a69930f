"""Cross-entropy from logits: PyTorch's."""

from baselines.torch_ways import leaves as arguments, pullbacks, torch

__all__ = ["arguments", "ways"]


def losses(logits, labels):
    """Of each row."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def ways(**sizes):
    """Losses and pullback."""
    return pullbacks(losses, 1)
