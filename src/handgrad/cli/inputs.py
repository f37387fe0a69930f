"""The inputs of a target given as shapes: whether they fit it and this machine, before any is allocated."""

import inspect
import math
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.checks import InputError
from handgrad.crosscheck.subject.messages import in_short

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
BYTES = 150  # that a check takes at its peak for each number in the inputs, residuals and outputs, as measured
OTHERWISE = 8 * 2**30  # bytes of memory assumed where the system doesn't say


def parse_shapes(text: str) -> list[tuple[int, ...]]:
    """ "5,7;3" as [(5, 7), (3,)]; nothing between two semicolons is a scalar.

    Raises:
      InputError: anything else.
    """
    try:
        shapes = [tuple(int(n) for n in part.strip(" ()").split(",") if n.strip()) for part in text.split(";")]
    except ValueError:
        shapes = [(-1,)]
    if any(n < 0 for shape in shapes for n in shape):
        raise InputError(f'check: shapes must be whole numbers as in "5,7;7,3;3", got {text!r}')
    return shapes


def required(function: Callable[..., object]) -> list[str]:
    """The parameters that must be given by position; none where the signature is unknown."""
    return [p.name for p in _parameters(function) if p.kind in POSITIONAL and p.default is p.empty]


def check_arguments(name: str, function: Callable[..., object], count: int, option: str) -> None:
    """Raise an InputError unless `function` takes `count` positional arguments."""
    least, parameters = len(required(function)), _parameters(function)
    names = [p.name for p in parameters if p.kind in POSITIONAL]
    if not parameters or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        takes, fits = f"at least {least}", count >= least
    else:
        takes = str(least) if least == len(names) else f"{least} to {len(names)}"
        fits = least <= count <= len(names)
    if not fits:
        noun = "argument" if takes == "1" else "arguments"
        raise InputError(f"check: {name} takes {takes} {noun} ({', '.join(names)}), got {count} by {option}")


def draw(
    name: str, forward: Callable[..., object], shapes: Sequence[tuple[int, ...]], dtype_name: str, seed: int
) -> tuple[np.ndarray, ...]:
    """Normal numbers of these shapes.

    Raises:
      InputError: `forward` doesn't take arrays of these shapes, or the check needs more memory than there is.
    """
    dtype = jnp.dtype(dtype_name)
    _check_memory(shapes, dtype, shapes)
    _check_memory(shapes, dtype, [*shapes, *_outputs(name, forward, shapes, dtype)])
    rng, arguments = np.random.default_rng(seed), []
    for shape in shapes:
        numbers = rng.standard_normal(shape)
        if dtype.kind == "c":
            numbers = numbers + 1j * rng.standard_normal(shape)
        arguments.append(np.asarray(numbers).astype(dtype))
    return tuple(arguments)


def _outputs(
    name: str, forward: Callable[..., object], shapes: Sequence[tuple[int, ...]], dtype: np.dtype
) -> list[tuple[int, ...]]:
    """The shapes of what `forward` returns, computed without its numbers; none where they depend on the numbers."""

    def arrays(*inputs: jax.Array) -> list[jax.Array | np.ndarray]:
        return [leaf for leaf in jax.tree.leaves(forward(*inputs)) if isinstance(leaf, jax.Array | np.ndarray)]

    try:
        with jax.enable_x64(dtype in (np.float64, np.complex128)):
            found = jax.eval_shape(arrays, *(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes))
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        return []  # it needs numbers, as a NumPy function does: the check says what there is to say
    except (Exception, SystemExit) as error:
        given = "; ".join(str(shape) for shape in shapes)
        raise InputError(
            f"check: {name} can't be called with {dtype.name} arrays of shapes {given}: {type(error).__name__}: "
            f"{in_short(error)}{'; integers come with --args' if 'integer' in str(error) else ''}"
        ) from None
    return [leaf.shape for leaf in found]


def _check_memory(shapes: Sequence[tuple[int, ...]], dtype: np.dtype, held: Sequence[tuple[int, ...]]) -> None:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = OTHERWISE
    own, needed = sum(map(math.prod, shapes)) * dtype.itemsize, BYTES * sum(map(math.prod, held))
    if needed > memory:
        raise InputError(
            f"check: shapes are {own:,} bytes of {dtype.name}, and checking them takes about {needed:,} bytes; "
            f"this machine has {memory:,}"
        )


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []
