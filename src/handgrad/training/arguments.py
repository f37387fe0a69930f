"""What a step and `fit` are given, checked before anything is traced."""

from collections.abc import Iterable, Mapping
from typing import TypeGuard

import jax
import optax
from jaxtyping import PyTree

from handgrad.checks import InputError, describe, is_array
from handgrad.training.gradients import OPTIONS
from handgrad.training.layouts import Layout
from handgrad.training.state import TrainState

OF_A_STEP = {  # options of `train_step` that an epoch can't have
    "check_finite": 'nonfinite="skip" leaves steps out that are not finite',
    "noise_scale": "train_step(..., noise_scale=True) gives it for each step, to average over steps",
    "per_leaf": "it is an option of train_step's noise_scale",
}
BATCHES = "a tuple (x, target) or (x, target, weights) of arrays, or an iterable of such batches"


def check_options(where: str, options: Mapping[str, object], elsewhere: Mapping[str, str]) -> None:
    """Options of a gradient alone.

    Args:
      elsewhere: options that `where` refuses, and why.
    """
    for name in options:
        if name in elsewhere:
            raise InputError(f"{where}: {name} must be left out: {elsewhere[name]}")
        if name not in OPTIONS:
            raise TypeError(f"{where}() got an unexpected keyword argument {name!r}")


def check_optimizer(where: str, optimizer: object) -> None:
    """An optax transformation."""
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise InputError(
            f"{where}: optimizer must be an optax transformation, such as optax.adam(1e-3), got {describe(optimizer)}"
        )


def check_state(where: str, state: object, optimizer: optax.GradientTransformation) -> None:
    """A TrainState of this optimizer."""
    if not isinstance(state, TrainState):
        raise InputError(
            f"{where}: state must be a TrainState, as init_state(params, optimizer, key) makes it, "
            f"got {describe(state)}"
        )
    expected, found = jax.eval_shape(optimizer.init, state.params), state.opt_state
    if jax.tree.structure(expected) != jax.tree.structure(found):
        raise InputError(
            f"{where}: state must be of the same optimizer, as init_state(params, optimizer, key) makes it: "
            f"expected an opt_state of {_kinds(expected)}, got {_kinds(found)}"
        )


def is_in_memory(data: object, where: str, batch_size: int | None) -> TypeGuard[tuple[PyTree, ...]]:
    """Whether the data is in memory; an iterable has batches already."""
    if isinstance(data, tuple) and len(data) in (2, 3):
        return True
    if is_array(data) or not (isinstance(data, Iterable) or hasattr(data, "epoch")):
        raise InputError(f"{where}: data must be {BATCHES}, got {describe(data)}")
    if isinstance(data, list) and len(data) in (2, 3) and all(map(is_array, data)):
        raise InputError(f"{where}: data must be {BATCHES}, got a list of arrays: make it a tuple")
    if batch_size is not None:
        raise InputError(
            f"{where}: batch_size must be left out for an iterable, whose batches are taken as they come, "
            f"got {batch_size!r}"
        )
    return False


def check_layout(where: str, layout: object) -> None:
    """A Layout, where there is one."""
    if layout is not None and not isinstance(layout, Layout):
        raise InputError(
            f"{where}: layout must be a Layout, as data_parallel(make_mesh()) makes it, got {describe(layout)}"
        )


def _kinds(state: object) -> str:
    """An optimizer's state as an error message names it: the kinds of its transformations."""
    inside = state if type(state) is tuple else (state,)
    return ", ".join(_kinds(one) if type(one) is tuple else type(one).__name__ for one in inside) or "nothing"
