"""JAX's primitives that move numbers or sum them, in NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Rule = Callable[..., Any]  # (inputs, params) -> the output


def cast(array: Any, dtype: Any) -> Any:
    """The array in another dtype; a real one takes the real part."""
    if array.dtype == dtype:
        return array
    if np.iscomplexobj(array) and not jnp.issubdtype(dtype, jnp.complexfloating):
        array = array.real
    return array.astype(dtype)


def _dot_general(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    A, B = inputs
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    free_a = [i for i in range(A.ndim) if i not in left and i not in left_batch]
    free_b = [i for i in range(B.ndim) if i not in right and i not in right_batch]
    batch = [A.shape[i] for i in left_batch]
    if [A.shape[i] for i in left] != [B.shape[i] for i in right]:
        raise ValueError("contracted axes of two lengths")
    size = int(np.prod([A.shape[i] for i in left]))
    rows, columns = [A.shape[i] for i in free_a], [B.shape[i] for i in free_b]
    one = A.transpose([*left_batch, *free_a, *left]).reshape(*batch, int(np.prod(rows)), size)
    two = B.transpose([*right_batch, *right, *free_b]).reshape(*batch, size, int(np.prod(columns)))
    return (one @ two).reshape((*batch, *rows, *columns))


def _broadcast_in_dim(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    x, shape = inputs[0], params["shape"]
    ones = [1] * len(shape)
    for axis, length in zip(params["broadcast_dimensions"], x.shape, strict=True):
        ones[axis] = length
    return np.broadcast_to(x.reshape(ones), shape)


def _reshape(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    return inputs[0].reshape(params["new_sizes"])


def _pad(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    x, value = inputs
    config = params["padding_config"]
    shape = [max(lo, 0) + max(n + (n - 1) * i, 0) + max(hi, 0) for n, (lo, hi, i) in zip(x.shape, config, strict=True)]
    out = np.full(shape, value, x.dtype)
    inside = tuple(
        slice(max(lo, 0), max(lo, 0) + max(n + (n - 1) * i, 0), i + 1)
        for n, (lo, _, i) in zip(x.shape, config, strict=True)
    )
    out[inside] = x
    return out[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi, _) in zip(shape, config, strict=True))]


def _slice(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    strides = params["strides"] or [1] * inputs[0].ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return inputs[0][tuple(slice(start, limit, stride) for start, limit, stride in limits)]


def _starts(x: Any, sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    """JAX keeps a dynamic slice inside the array."""
    places = [min(max(int(at), 0), n - size) for at, n, size in zip(starts, x.shape, sizes, strict=True)]
    return tuple(slice(at, at + size) for at, size in zip(places, sizes, strict=True))


def _dynamic_slice(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    return inputs[0][_starts(inputs[0], params["slice_sizes"], inputs[1:])]


def _dynamic_update_slice(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    out = np.array(inputs[0])
    out[_starts(out, inputs[1].shape, inputs[2:])] = inputs[1]
    return out


def _split(inputs: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    return np.split(inputs[0], np.cumsum(params["sizes"])[:-1], axis=params["axis"])


def _iota(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    shape, axis = params["shape"], params["dimension"]
    along = [n if i == axis else 1 for i, n in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[axis], dtype=params["dtype"]).reshape(along), shape)


def _select_n(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
    which, *cases = inputs
    if len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases)


def _accumulate(function: np.ufunc) -> Rule:
    def rule(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
        x, axis = inputs[0], params["axis"]
        if params["reverse"]:
            return np.flip(function.accumulate(np.flip(x, axis), axis=axis), axis)
        return function.accumulate(x, axis=axis)

    return rule


def _reduce(function: np.ufunc) -> Rule:
    return lambda inputs, params: function.reduce(inputs[0], axis=tuple(params["axes"]))


def _extreme(function: np.ufunc) -> Rule:
    """The largest or smallest; of nothing it is what JAX has, the dtype's other end."""
    low = function is np.maximum

    def rule(inputs: Sequence[Any], params: dict[str, Any]) -> Any:
        x, axes = inputs[0], tuple(params["axes"])
        if x.size:
            return function.reduce(x, axis=axes)
        if x.dtype.kind == "b":
            end: Any = not low
        elif x.dtype.kind in "iu":
            end = np.iinfo(x.dtype).min if low else np.iinfo(x.dtype).max
        else:
            end = -np.inf if low else np.inf
        return function.reduce(x, axis=axes, initial=end)

    return rule


ARRANGED: dict[str, Rule] = {
    "argmax": lambda inputs, params: np.argmax(inputs[0], axis=params["axes"][0]),
    "argmin": lambda inputs, params: np.argmin(inputs[0], axis=params["axes"][0]),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda inputs, params: np.concatenate(inputs, axis=params["dimension"]),
    "convert_element_type": lambda inputs, params: cast(inputs[0], params["new_dtype"]),
    "cummax": _accumulate(np.maximum),
    "cummin": _accumulate(np.minimum),
    "cumprod": _accumulate(np.multiply),
    "cumsum": _accumulate(np.add),
    "dot_general": _dot_general,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "iota": _iota,
    "pad": _pad,
    "reduce_and": _reduce(np.bitwise_and),
    "reduce_max": _extreme(np.maximum),
    "reduce_min": _extreme(np.minimum),
    "reduce_or": _reduce(np.bitwise_or),
    "reduce_prod": _reduce(np.multiply),
    "reduce_sum": _reduce(np.add),
    "reshape": _reshape,
    "rev": lambda inputs, params: np.flip(inputs[0], params["dimensions"]),
    "select_n": _select_n,
    "slice": _slice,
    "split": _split,
    "squeeze": lambda inputs, params: np.squeeze(inputs[0], tuple(params["dimensions"])),
    "transpose": lambda inputs, params: np.transpose(inputs[0], params["permutation"]),
}
