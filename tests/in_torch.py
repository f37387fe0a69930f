"""What tests against PyTorch share: its values and gradients, and how they are compared."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def in_torch(function: Callable[..., Any], *arguments: Any) -> tuple[Any, tuple[Any, ...]]:
    """A value, with a cotangent drawn for it in the first place: (dY, value, cotangents of the arguments)."""
    import torch

    leaves = [torch.tensor(a, requires_grad=True) for a in arguments]
    value = function(*leaves)
    dY = normal(*value.shape, seed=1)
    value.backward(torch.tensor(dY))
    return dY, (value.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves))


def assert_close(found: Any, expected: Any, name: str = "", rtol: float = 1e-12) -> None:
    """Leaf by leaf, within rtol of each array's largest."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected), name
    for mine, theirs in zip(found, expected, strict=True):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        assert mine.shape == theirs.shape, name
        assert np.abs(mine - theirs).max() <= rtol * np.abs(theirs).max(), name
