"""What tests against PyTorch share: its values and gradients, and how they are compared."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from helpers import together

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

LARGE = np.array([[1e4, -1e4, 0.25, 9999.0], [-1e4, -1e4, -9999.5, -1e4], [1e4, 1e4, 1e4, 1e4]])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def in_torch(function: Callable[..., Any], *arguments: Any, dY: Any = None) -> tuple[Any, tuple[Any, ...]]:
    """(dY, value, cotangents of the arguments), dY drawn where none is given; None for what has no gradient."""
    leaves = [None if a is None else torch.tensor(a, requires_grad=a.dtype == np.float64) for a in arguments]
    value = function(*leaves)
    dY = normal(*value.shape, seed=1) if dY is None else dY
    value.backward(torch.tensor(dY))
    grads = (None if leaf is None or leaf.grad is None else leaf.grad.numpy() for leaf in leaves)
    return dY, (value.detach().numpy(), *grads)


def channels_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function of channels at the last axis that is torch's of channels at axis 1."""
    return lambda x, *rest: function(x.movedim(-1, 1), *rest).movedim(1, -1)


def assert_close(found: Any, expected: Any, name: str = "", rtol: float = 1e-12) -> None:
    """Leaf by leaf, within rtol of each array's largest."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected), name
    for mine, theirs in zip(found, expected, strict=True):
        mine, theirs = np.asarray(mine), np.asarray(theirs)
        assert mine.shape == theirs.shape, name
        assert np.abs(mine - theirs).max() <= rtol * np.abs(theirs).max(), name


def assert_rules_agree(rows: Any, rtol: float = 1e-12) -> None:
    """Rows of (rule, torch's function, arguments), with names or without: value and each gradient that torch has; our
    side is one program."""
    names, rows = (list(rows), list(rows.values())) if isinstance(rows, dict) else (rows, rows)
    theirs = [in_torch(function, *arguments) for _, function, arguments in rows]
    ours = together((rule, dY, args) for (rule, _, args), (dY, _) in zip(rows, theirs, strict=True))
    for name, (*_, args), (Y, cotangents), (_, expected) in zip(names, rows, ours, theirs, strict=True):
        numbers = [a is not None and a.dtype == float for a in args] + [False] * (len(cotangents) - len(args))
        assert [d is not None for d in cotangents] == numbers, name
        pairs = [(one, two) for one, two in zip((Y, *cotangents), expected, strict=False) if two is not None]
        assert all(np.isfinite(one).all() for one, _ in pairs), name
        assert_close(*map(list, zip(*pairs, strict=True)), name, rtol)


def assert_activations_agree(*rows: tuple[Any, Callable[..., Any]]) -> None:
    """Rows of (rule, torch's function): on numbers of usual size, and at ±1e4."""
    assert_rules_agree([(*row, (X,)) for row in rows for X in (2 * normal(5, 2, 4), LARGE)])
