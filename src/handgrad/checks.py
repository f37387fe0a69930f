"""Checks of arguments, with errors that name the function, the argument, what was expected and what came.

All checks are of shapes and dtypes, so they run at trace time, cost nothing in the compiled program and raise before
anything is computed.
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Shaped

R = TypeVar("R")


class InputError(ValueError):
    """An invalid argument: one sentence with the function, the argument, what was expected, what came.

    `path` is the layer of a composed network in which it occurred ("2", "encoder.0"): each `chain` that the error
    passes through prepends its name for the layer.
    """

    def __init__(self, sentence: str, path: tuple[str, ...] = ()):
        super().__init__(sentence)
        self.sentence = sentence
        self.path = path

    def __str__(self) -> str:
        return f"in layer {'.'.join(map(quoted, self.path))}: {self.sentence}" if self.path else self.sentence


def is_array(value: object) -> TypeGuard[Array | jax.ShapeDtypeStruct]:
    """Whether `value` has a shape and a dtype, as arrays, tracers and ShapeDtypeStructs do."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_integer(value: object) -> TypeGuard[Array]:
    """Whether `value` is an array of integers."""
    return is_array(value) and jnp.issubdtype(value.dtype, jnp.integer)


def describe(value: object) -> str:
    """`value` as an error message names it: `float32 (3, 4)` for an array, its type's name for anything else."""
    if is_array(value):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def path_name(path: jax.tree_util.KeyPath) -> str:
    """A leaf's path in a pytree as "blocks.0.W"; two paths never have one name.

    A key that holds a dot itself is quoted: 'a.b'.W is not a.b.W.
    """
    return ".".join(quoted(jax.tree_util.keystr((key,), simple=True)) for key in path)


def quoted(key: str) -> str:
    """One key of a path, quoted where it might be taken for several."""
    return repr(key) if not key or set(key) & set(".'\"") else key


def check_array(
    where: str, name: str, value: object, min_ndim: int = 0, *, allow_complex: bool = False, filled: bool = False
) -> None:
    """`value` has a shape, a floating-point dtype, or a complex one, and at least `min_ndim` axes; if `filled`, its
    last axis is not empty, as for whatever takes a maximum along it."""
    if not is_array(value):
        raise InputError(f"{where}: {name} must be an array, got {describe(value)}")
    if not jnp.issubdtype(value.dtype, jnp.inexact if allow_complex else jnp.floating):
        kind = "floating-point or complex" if allow_complex else "floating-point"
        raise InputError(f"{where}: {name} must have a {kind} dtype, got {describe(value)}")
    if len(value.shape) < min_ndim:
        axes = "(batch, ..., features)" if min_ndim == 2 else f"at least {min_ndim} axes, the batch first"
        raise InputError(f"{where}: {name} must have shape {axes}, got {describe(value)}")
    if filled and value.shape[-1] == 0:
        raise InputError(f"{where}: {name} must have at least one number along the last axis, got {describe(value)}")


def check_shape(where: str, name: str, value: object, shape: Sequence[int], why: str = "") -> None:
    """`value` has exactly this shape: nothing is broadcast."""
    found = getattr(value, "shape", None)
    if found is None:
        raise InputError(f"{where}: {name} must be an array of shape {tuple(shape)}, got {describe(value)}")
    if tuple(found) != tuple(shape):
        reason = f" {why}" if why else ""
        raise InputError(f"{where}: {name} must have shape {tuple(shape)}{reason}, got {describe(value)}")


def check_target(where: str, Y: Array, shape: Sequence[int], why: str) -> None:
    """`Y` is a target of this shape, of real numbers or integers."""
    check_shape(where, "the target Y", Y, shape, why)
    if not (jnp.issubdtype(Y.dtype, jnp.floating) or is_integer(Y)):
        raise InputError(f"{where}: the target Y must be of real numbers or integers, got {describe(Y)}")


def check_positive(where: str, name: str, value: object) -> None:
    """`value` is a number above zero."""
    if isinstance(value, bool) or not (isinstance(value, int | float | np.number) and 0 < value < math.inf):
        raise InputError(f"{where}: {name} must be a positive number, got {value!r}")


def check_flags(where: str, **flags: object) -> None:
    """Each of these options is True or False: any other value may be meant for something else."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{where}: {name} must be True or False, got {value!r}")


def check_share(where: str, name: str, value: object) -> None:
    """`value` is a number in [0, 1)."""
    if isinstance(value, bool) or not (isinstance(value, int | float | np.number) and 0 <= value < 1):
        raise InputError(f"{where}: {name} must be in [0, 1), got {value!r}")


def check_count(where: str, name: str, value: object) -> None:
    """`value` is a whole number, 1 at least."""
    if isinstance(value, bool) or not (isinstance(value, int | np.integer) and value >= 1):
        raise InputError(f"{where}: {name} must be a positive integer, got {value!r}")


def check_choice(where: str, name: str, value: object, choices: Sequence[object]) -> None:
    """`value` is one of at least two choices; of many, an error names those that are similar."""
    if value in choices:
        return
    if len(choices) > 30:
        near = difflib.get_close_matches(str(value), list(map(str, choices)), n=5, cutoff=0.5)
        such = f" (similar: {', '.join(near)})" if near else ""
        raise InputError(f"{where}: {name} must be one of {len(choices)} names{such}, got {value!r}")
    *others, last = map(repr, choices)
    raise InputError(f"{where}: {name} must be {', '.join(others)} or {last}, got {value!r}")


def check_cotangent(
    where: str, dY: object, shape: Sequence[int], dtype: DTypeLike | None, name: str = "dY", of: str = "Y"
) -> None:
    """`dY` has the shape and dtype of the output whose cotangent it is; dtype=None accepts any floating-point dtype,
    for rules whose residuals don't have the output's."""
    kind = jnp.floating if dtype is None else jnp.inexact
    dtype = getattr(dY, "dtype", None) if dtype is None else dtype
    if dtype is None or not jnp.issubdtype(dtype, kind):
        raise InputError(
            f"{where}: {name} must be the cotangent of {of}, of numbers {tuple(shape)}, got {describe(dY)}"
        )
    dtype = jax.dtypes.canonicalize_dtype(dtype)  # of a NumPy float64 that JAX computes with as float32
    if not is_array(dY) or tuple(dY.shape) != tuple(shape) or dY.dtype != dtype:
        raise InputError(
            f"{where}: {name} must be the cotangent of {of}, {np.dtype(dtype)} {tuple(shape)}, got {describe(dY)}"
        )


def check_residuals(where: str, residuals: object, expected: type[R]) -> R:
    """`residuals` are of the type that this rule's forward pass returns."""
    if not isinstance(residuals, expected):
        raise InputError(f"{where}: residuals must be {expected.__name__}, got {describe(residuals)}")
    return residuals


def check_params(where: str, params: object, expected: type[R]) -> R:
    """`params` are of this layer's type."""
    if not isinstance(params, expected):
        raise InputError(f"{where}: params must be {expected.__name__}, got {describe(params)}")
    return params


def as_row(b: Shaped[Array, " n"], ndim: int) -> Shaped[Array, "*ones n"]:
    """`b` as (1, ..., 1, n) with `ndim` axes: explicit rank promotion."""
    return jnp.expand_dims(b, tuple(range(ndim - 1)))


@contextmanager
def inside(layer: str) -> Iterator[None]:
    """Prepend `layer` to the path of an InputError that passes through."""
    try:
        yield
    except InputError as error:
        error.path = (layer, *error.path)
        raise
