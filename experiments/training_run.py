"""What the experiments that train share: the device, and a folder that a run is resumed from."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from handgrad.checks import InputError
from handgrad.layers import Layer, Loss
from handgrad.training import Run, TrainState, fit_run, init_state

MAY_CHANGE = ("epochs", "device", "check_every")  # when a run is resumed


@contextlib.contextmanager
def on_device(platform: str | None) -> Iterator[None]:
    """Everything inside on the first device of this platform: cpu, gpu or tpu; None is JAX's default.

    Raises:
      InputError: there is none.
    """
    if platform is None:
        yield
        return
    try:
        device = jax.devices(platform)[0]
    except RuntimeError:
        known = ", ".join(sorted({device.platform for device in jax.devices()} | {"cpu"}))
        raise InputError(f"device: must be one of this machine's, {known}, got {platform!r}") from None
    with jax.default_device(device):
        yield


def train(
    options: Any,
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    like: PyTree,
    **of_fit: Any,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Train in the folder `options.out`, from the beginning or from where a run of the same options was left.

    Args:
      options: with `seed`, `epochs` and `out`; all of them are the run's config.
      like: inputs for `model.init`.
      **of_fit: further arguments of `fit`.
    Returns:
      The state after the last epoch, and the metrics of all of them.
    """
    config = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items() if k != "out"}
    run = Run(options.out, config, may_change=MAY_CHANGE)
    init_key, key = jax.random.split(jax.random.key(options.seed))
    state = init_state(jax.jit(model.init)(init_key, like), optimizer, key)
    return fit_run(run, model, loss, optimizer, state, data, epochs=options.epochs, **of_fit)
