"""What functions, arguments and values are called in reports and errors."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.subject.messages import in_short


def label(f: Any, otherwise: str) -> str:
    """What to call a function."""
    while hasattr(f, "func") and not hasattr(f, "__name__"):  # functools.partial
        f = f.func
    name = getattr(f, "__name__", None)
    return otherwise if name in (None, "<lambda>") else name


def parameter_names(f: Callable[..., object], count: int) -> list[str]:
    """What a function calls its first `count` arguments."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"argument{i}" for i in range(count)]


def keystr(path: Any) -> str:
    """A path in a pytree as "0.W"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def describe(value: Any) -> str:
    """What came, in a few words."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"


def first_line(error: BaseException) -> str:
    """What a function under test raised, on one line."""
    return f"{type(error).__name__} while being checked: {in_short(error)}"


def literal(value: Any) -> str:
    """A pytree of arrays as Python that makes it again, whether or not 64-bit types are on."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return f"jax.random.wrap_key_data({literal(jax.random.key_data(value))})"
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"np.array({np.asarray(value).tolist()}, '{value.dtype}')"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {literal(part)}' for key, part in value.items())}}}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(literal(part) for part in value)})"
    if isinstance(value, tuple | list):
        inside = ", ".join(literal(part) for part in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    return label(value, repr(value)) if callable(value) else repr(value)


def lambdas(functions: Mapping[str, Any]) -> str:
    """Which lambdas the names in a line of Python stand for, as a comment behind it; "" where there is none."""
    codes = {name: getattr(f, "__code__", None) for name, f in functions.items()}
    said = [
        f"{name} is the lambda at {os.path.basename(code.co_filename)}:{code.co_firstlineno}"
        for name, code in codes.items()
        if code is not None and code.co_name == "<lambda>"
    ]
    return f"  # {', '.join(said)}" if said else ""


def counted(n: int, noun: str) -> str:
    """ "1 cotangent", "2 cotangents"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
