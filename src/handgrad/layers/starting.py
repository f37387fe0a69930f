"""`init`, called eagerly: one program instead of one for each operation, and one that compiles fast.

Nearly all of the first call's time goes into compiling JAX's threefry hash, once for every key that is split and every
shape that is drawn. On CPU that hash is a loop; written out it compiles in a fifth of the time. NumPy splits the keys:
XLA would copy their hashes into every draw that follows from them. The numbers are the same, since bits are the hash of
an element's index.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.checks import InputError, describe
from handgrad.rules._threefry import CONFIG, THREEFRY, hashed, threefry

MISSING: Any = object()
Init = Callable[[PRNGKeyArray, PyTree], PyTree]


def at_once(init: Init) -> Init:
    """`init`, compiled as a whole where it is called eagerly; x is then a ShapeDtypeStruct."""

    @partial(jax.jit, static_argnums=(1, 2, 3))
    def program(key: PRNGKeyArray, x: tuple[jax.ShapeDtypeStruct, ...], structure: Any, fast: bool) -> PyTree:
        params = init(_as(FAST, key) if fast else key, structure.unflatten(x))
        return jax.tree.map(lambda p: _as(THREEFRY, p) if _is_key(p) and fast else p, params)

    def start(key: PRNGKeyArray, x: PyTree = MISSING) -> PyTree:
        if x is MISSING:
            raise InputError(f"init: expected a key and x, init(jax.random.key(0), x), got {describe(key)} alone")
        leaves, structure = jax.tree.flatten(x)
        arrays = all(isinstance(leaf, np.ndarray | jax.Array | jax.ShapeDtypeStruct) for leaf in leaves)
        if CONFIG.jax_disable_jit or not _is_key(key) or not arrays or _traced(key, *leaves):
            return init(key, x)
        like = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)
        return program(key, like, structure, _is_threefry_on_cpu(key))

    return start


def _bits(key: Array, width: int, shape: tuple[int, ...]) -> Array:
    """Element i is the hash of i."""
    if math.prod(shape) > 2**32:
        return jax.random.bits(_as(THREEFRY, key), shape, f"uint{width}")
    high, low = hashed(key, shape)
    if width == 64:
        return (high.astype("uint64") << np.uint64(32)) | low.astype("uint64")
    return (high ^ low).astype(f"uint{width}")


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    """Key i is the hash of i."""

    def by_numpy(key: Array) -> np.ndarray:
        index = np.arange(math.prod(shape), dtype=np.uint32)
        k0, k1 = (np.asarray(key)[..., i, None] for i in (0, 1))
        words = np.broadcast_arrays(*threefry(k0, k1, np.zeros_like(index), index))
        return np.stack(words, axis=-1).reshape(*k0.shape[:-1], *shape, 2)

    like = jax.ShapeDtypeStruct((*shape, 2), np.uint32)
    return jax.pure_callback(by_numpy, like, key, vmap_method="expand_dims")


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl=THREEFRY))


def _fold_in(key: Array, data: int | Array) -> Array:
    return jax.random.key_data(jax.random.fold_in(_as(THREEFRY, key), data))


FAST = define_prng_impl(key_shape=(2,), seed=_seed, split=_split, random_bits=_bits, fold_in=_fold_in, name="fast")


def _as(implementation: Any, key: PRNGKeyArray | Array) -> PRNGKeyArray:
    """The key with these words."""
    return jax.random.wrap_key_data(jax.random.key_data(key) if _is_key(key) else key, impl=implementation)


def _is_key(value: object) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _traced(*values: object) -> bool:
    return any(isinstance(value, jax.core.Tracer) for value in values)


def _is_threefry_on_cpu(key: PRNGKeyArray) -> bool:
    of_index = CONFIG.jax_threefry_partitionable
    return of_index and jax.random.key_impl(key) == THREEFRY and {d.platform for d in key.devices()} == {"cpu"}
