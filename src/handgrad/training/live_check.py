"""The gradient of a run compared with autodiff's while it trains."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from handgrad.backprop import objective, value_and_grad
from handgrad.crosscheck import Report, check_model
from handgrad.layers import Layer, Loss
from handgrad.training.batches import Batch, Inspect
from handgrad.training.state import TrainState, noise_key


class GradientError(ArithmeticError):
    """The hand-written gradient differs from autodiff's in the middle of a run.

    Attributes:
      report: the checker's, on the parameters and the batch of that step.
      state: before that step.
    """

    def __init__(self, message: str, report: Report, state: TrainState):
        super().__init__(message)
        self.report = report
        self.state = state


def live_check(model: Layer, loss: Loss) -> Inspect:
    """(state, batch) -> None: compares both gradients in one compiled program, and asks the checker where they differ
    by more than rounding.

    Raises:
      GradientError: the checker finds them different too.
    """

    @jax.jit
    def same(state: TrainState, batch: Batch) -> PyTree[Bool[Array, ""]]:
        key = noise_key(state)
        _, by_hand = value_and_grad(model, loss)(state.params, batch.x, batch.target, batch.weights, key)
        by_autodiff = jax.grad(objective(model, loss))(state.params, batch.x, batch.target, batch.weights, key)
        return jax.tree.map(_same, by_hand, by_autodiff)

    def inspect(state: TrainState, batch: Batch) -> None:
        found = jax.tree.leaves(jax.device_get(same(state, batch)))
        if all(found):
            return
        report = check_model(model, loss, state.params, batch.x, batch.target)
        if not report.ok:
            step = int(state.step) + 1
            raise GradientError(f"fit: the gradient differs from autodiff's in step {step}\n{report}", report, state)

    return inspect


def _same(found: Array, expected: Array) -> Bool[Array, ""]:
    """Whether two gradients differ by rounding alone; where autodiff's isn't finite, there is nothing to compare."""
    size = jnp.linalg.norm(expected.ravel())
    return (jnp.linalg.norm((found - expected).ravel()) <= size * jnp.finfo(size.dtype).eps ** 0.5) | ~jnp.isfinite(
        size
    )
