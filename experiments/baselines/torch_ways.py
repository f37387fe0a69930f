"""PyTorch on one thread: value and gradient of a loss, eager and compiled."""

import importlib
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of compilers beside what is timed
torch: Any = importlib.import_module("torch")
torch.set_num_threads(1)


def eager_and_compiled(loss: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Both ways of a loss of (params, *data), params a dict of tensors."""
    return {"torch": value_and_grad(loss), "torch.compile": value_and_grad(torch.compile(loss))}


def value_and_grad(loss: Callable[..., Any]) -> Callable[..., Any]:
    """(params, *data) -> (value, grads)."""

    def both(params: dict[str, Any], *data: Any) -> tuple[Any, dict[str, Any]]:
        value = loss(params, *data)
        grads = torch.autograd.grad(value, list(params.values()))
        return value.detach(), dict(zip(params, grads, strict=True))

    return both


def tensors(params: dict[str, np.ndarray], *data: np.ndarray) -> tuple[Any, ...]:
    """The parameters as leaves that gradients are asked of, and the data; integers as int64."""
    leaves = {name: torch.tensor(np.array(a), requires_grad=True) for name, a in params.items()}
    data = jax.tree.map(np.array, data)
    return leaves, *(torch.tensor(a).long() if a.dtype == np.int32 else torch.tensor(a) for a in data)


def pullbacks(function: Callable[..., Any], *others: int) -> dict[str, Callable[..., Any]]:
    """(*arguments, dY) -> (Y, cotangents of all arguments but those at the places `others`), eager and compiled."""

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        def both(*arguments: Any) -> tuple[Any, tuple[Any, ...]]:
            *primals, dY = arguments
            Y = function(*primals)
            leaves = [primal for i, primal in enumerate(primals) if i not in others]
            return Y.detach(), torch.autograd.grad(Y, leaves, dY)

        return both

    return {"torch": of(function), "torch.compile": of(torch.compile(function))}


def leaves(*arguments: np.ndarray) -> tuple[Any, ...]:
    """Arguments of `pullbacks`: tensors that gradients are asked of, but integers and the last."""
    *primals, dY = (torch.tensor(np.array(a)) for a in arguments)
    return *(a.requires_grad_() if a.is_floating_point() else a.long() for a in primals), dY
