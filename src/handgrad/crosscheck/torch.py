"""A PyTorch function as a rule on NumPy arrays, for `check_rule`: needs the extra `torch`."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def from_torch(f: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The (forward, backward) pair of a function of PyTorch tensors, with the gradient that PyTorch gives it.

    Args:
      f: (*tensors) -> a tensor, or a tuple or dict of them: a `torch.autograd.Function`'s `apply`, a module, or any
        differentiable function.
    Returns:
      forward: (*arrays) -> (output, residuals), backward: (residuals, cotangent) -> one cotangent for each argument.
    Raises:
      ModuleNotFoundError: without PyTorch.

    Example:
      check_rule(from_torch(MyFunction.apply), x, W)
      check_rule(from_torch(MyFunction.apply), x, W, reference=my_function_in_jax)
    """
    torch: Any = importlib.import_module("torch")  # by name: a type checker needn't have it

    def forward(*arguments: Any) -> tuple[Any, Any]:
        tensors = [torch.from_numpy(np.array(argument)) for argument in arguments]
        for tensor in tensors:
            tensor.requires_grad_(tensor.is_floating_point() or tensor.is_complex())
        output = f(*tensors)
        return jax.tree.map(lambda y: y.detach().numpy(), output), (tensors, output)

    def backward(residuals: Any, dY: Any) -> tuple[Any, ...]:
        tensors, output = residuals
        pairs = list(zip(jax.tree.leaves(output), jax.tree.leaves(dY), strict=True))
        pairs = [(y, torch.from_numpy(np.array(d))) for y, d in pairs if y.requires_grad]
        wanted = [tensor for tensor in tensors if tensor.requires_grad]
        # PyTorch's gradient is the conjugate of JAX's, and so is the cotangent that it takes.
        found = torch.autograd.grad(
            [y for y, _ in pairs], wanted, [d.conj() for _, d in pairs], retain_graph=True, allow_unused=True
        )
        by_tensor = {
            id(t): None if g is None else g.resolve_conj().conj().resolve_conj().numpy()
            for t, g in zip(wanted, found, strict=True)
        }
        return tuple(by_tensor.get(id(tensor)) for tensor in tensors)

    return forward, backward
