"""One step of gradient descent by jax.grad and optax. The state is any NamedTuple of params, opt_state and step."""

from collections.abc import Callable
from typing import Any

import jax
import optax

RATE, CLIP = 1e-3, 1.0


def stepping(loss: Callable[..., Any], *, clip: bool) -> dict[str, Callable[..., Any]]:
    """(state, x, target) -> (state, value); with the gradient clipped to a global norm."""
    sgd = optax.sgd(RATE)
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), sgd) if clip else sgd

    def step(state: Any, x: Any, target: Any) -> tuple[Any, Any]:
        value, grads = jax.value_and_grad(loss)(state.params, x, target)
        updates, _ = optimizer.update(grads, optimizer.init(state.params), state.params)  # it has no state
        return state._replace(params=optax.apply_updates(state.params, updates), step=state.step + 1), value

    return {"jax.grad and optax": step}
