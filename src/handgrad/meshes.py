"""Where arrays lie: what lets the same code run on one device, under Explicit or Auto mesh axes, and in shard_map.

Auto axes need nothing: the compiler decides. Explicit axes are part of an array's type, so that a sum over a sharded
axis, a gather or a scatter must say how its result is sharded, and a scan must start from the type that it carries.
Inside jax.shard_map the same holds for the axes along which an array varies. On one device all of this is the plain
operation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Array = jax.Array


def einsum(subscripts: str, A: Array, B: Array, dtype: Any = None) -> Array:
    """jnp.einsum of two arrays, summed in `dtype`; an axis of the result is sharded as the axis that it comes from."""
    inputs, _, output = subscripts.partition("->")
    axes = dict[str | int, Any]()
    for letters, array in zip(inputs.split(","), (A, B), strict=True):
        for letter, names in zip(_letters(letters, array.ndim), spec(array), strict=True):
            axes[letter] = axes.get(letter) or names
    most = max(A.ndim, B.ndim)  # an ellipsis of the result has as many axes as the longer of the operands'
    out = [axes[letter] for letter in _letters(output, len(output) + most) if letter in axes]
    return along(out, partial(jnp.einsum, subscripts, preferred_element_type=dtype), A, B)


def matmul(A: Array, B: Array, dtype: Any = None) -> Array:
    """A B for A (..., n) and B (n, m), summed in `dtype`."""
    if any(spec(A)) or any(spec(B)):
        return einsum("...n,nm->...m", A, B, dtype)
    return jnp.matmul(A, B, preferred_element_type=dtype)


def take_rows(table: Array, ids: Array, **options: Any) -> Array:
    """table[ids] along the first axis; `options` as those of `table.at[ids].get`."""
    return along([*spec(ids), *spec(table)[1:]], lambda table, ids: table.at[ids].get(**options), table, ids)


def segment_sum(Delta: Array, ids: Array, rows: int) -> Array:
    """Σ of the rows of Delta (..., n) that bear one number of `ids` (...): (rows, n). A number outside is dropped."""

    def add(Delta: Array, ids: Array) -> Array:
        return jnp.zeros((rows, Delta.shape[-1]), Delta.dtype).at[ids].add(Delta, mode="drop")

    return along([None, spec(Delta)[-1]], add, Delta, ids)


def along_batch(function: Callable[..., Any], *arrays: Any) -> Any:
    """function(*arrays), which works on each example alone: every result is sharded along the batch as the arrays
    are, which may be pytrees of arrays."""
    return along([next((spec(a)[0] for a in jax.tree.leaves(arrays) if any(spec(a))), None)], function, *arrays)


def along(axes: Sequence[Any], function: Callable[..., Any], *arrays: Any) -> Any:
    """function(*arrays), the result sharded over these mesh axes: for operations that can't tell it from the operands'
    Explicit axes, which are Auto ones inside."""
    out = placed(jax.tree.leaves(arrays), axes)
    return function(*arrays) if out is None else jax.sharding.auto_axes(function, out_sharding=out)(*arrays)


def scan(body: Callable[..., Any], carry: Any, xs: Any, **options: Any) -> Any:
    """jax.lax.scan; the carry starts with the sharding, and varies along the axes, that `body` gives it."""
    if _is_placed((carry, xs)) and all(len(a) for a in jax.tree.leaves(xs)):
        carry = _settled(lambda carry: body(carry, jax.tree.map(lambda a: a[0], xs))[0], carry)
    return jax.lax.scan(body, carry, xs, **options)


def fori_loop(count: int, body: Callable[[Any, Any], Any], carry: Any, *placed_as: Any) -> Any:
    """jax.lax.fori_loop from 0; `placed_as` are arrays that `body` closes over, which say where the carry lies."""
    if _is_placed((carry, placed_as)):
        carry = _settled(lambda carry: body(0, carry), carry)
    return jax.lax.fori_loop(0, count, body, carry)


def spec(A: Any) -> tuple[Any, ...]:
    """The Explicit mesh axes that each axis of A is sharded over; None for none."""
    return tuple(jax.typeof(A).sharding.spec)


def placed(arrays: Sequence[Any], axes: Sequence[Any]) -> NamedSharding | None:
    """The sharding of a result over these mesh axes, on the arrays' own mesh; None where they lie on none.

    A mesh axis that is named twice shards the last of the two: of a weight's gradient the outputs, as the weight's.
    """
    meshes = [s.mesh for s in (jax.typeof(A).sharding for A in arrays) if not s.mesh.empty]
    if not meshes or not any(any(spec(A)) for A in arrays):
        return None
    seen, once = set[str](), []
    for names in reversed(axes):
        once.append(_without(names, seen))
        seen.update(_names(names))
    return NamedSharding(meshes[0], PartitionSpec(*reversed(once)))


def places(tree: Any, batch: int) -> int:
    """How many devices a batch may lie on, a divisor of its examples: those of the arrays' mesh where its axes are
    Explicit, else those that there are, since a traced array does not say how Auto axes shard it."""
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree) if any(spec(leaf))]
    return math.gcd(batch, meshes[0].size if meshes else jax.device_count())


def gathered(params: Any, x: Any) -> Any:
    """Parameters as a layer needs them, whole along the mesh axes that shard the batch: the all-gather of fully sharded
    data parallelism. Auto axes leave it to the compiler."""
    of_batch = {name for a in jax.tree.leaves(x) for name in _names(spec(a)[0])}

    def gather(p: Array) -> Array:
        if of_batch.isdisjoint(name for names in spec(p) for name in _names(names)):
            return p
        return jax.sharding.reshard(p, placed((p,), [_without(names, of_batch) for names in spec(p)]))

    return jax.tree.map(gather, params)


def beside(arrays: Any, tree: Any) -> Any:
    """`tree` with arrays that lie on no mesh replicated on that of `arrays`, where its axes are Explicit: an update in
    place wants both on one."""
    meshes = [jax.typeof(a).sharding.mesh for a in jax.tree.leaves(arrays) if _has_explicit_axes(jax.typeof(a))]

    def put(a: Array) -> Array:
        if not meshes or not jax.typeof(a).sharding.mesh.empty:
            return a
        return jax.sharding.reshard(a, NamedSharding(meshes[0], PartitionSpec(*spec(a))))

    return jax.tree.map(put, tree)


def replicated(tree: Any) -> Any:
    """Every array whole on every device."""
    return jax.tree.map(lambda a: jax.sharding.reshard(a, placed((a,), [None] * a.ndim)) if any(spec(a)) else a, tree)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Types:
    """The types of a pytree's arrays, which say how they are sharded; static, so that residuals may hold them."""

    leaves: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, tree: Any) -> "Types":
        leaves, structure = jax.tree.flatten(tree)
        return cls(tuple(map(jax.typeof, leaves)), structure)

    def given_to(self, values: Any) -> Any:
        """Every array of `values` sharded, and varying at least, as the type in its place says; None stays None."""
        types = jax.tree.unflatten(self.structure, self.leaves)
        return jax.tree.map(
            lambda value, wanted: None if value is None else _as_type(value, wanted),
            values,
            types,
            is_leaf=lambda value: value is None,
        )


def varying_together(tree: Any) -> Any:
    """Every floating-point array of `tree` varying along all the axes of shard_map that any array varies along."""
    axes = frozenset().union(*(_varying(jax.typeof(leaf)) for leaf in jax.tree.leaves(tree)))
    if not axes:
        return tree
    return jax.tree.map(lambda leaf: _vary(leaf, axes) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _names(axis: Any) -> tuple[str, ...]:
    """The mesh axes that one axis of an array is sharded over."""
    return axis if isinstance(axis, tuple) else (axis,) if axis else ()


def _without(axis: Any, names: set[str]) -> Any:
    """The same but for some mesh axes, as a PartitionSpec writes it."""
    left = tuple(name for name in _names(axis) if name not in names)
    return left if len(left) > 1 else left[0] if left else None


def _letters(subscripts: str, ndim: int) -> list[str | int]:
    """One letter for each axis; the axes that an ellipsis stands for are numbered from the last."""
    before, dots, behind = subscripts.partition("...")
    return [*before, *range(len(before) + len(behind) - ndim, 0), *behind] if dots else [*before]


def _settled(step: Callable[[Any], Any], carry: Any) -> Any:
    """The carry as `step` hands it on; what it carries in may change that once more."""
    found = Types((), None)

    def record(carry):
        nonlocal found
        carry = step(carry)
        found = Types.of(carry)
        return carry

    for _ in range(2):
        jax.eval_shape(record, carry)
        carry = found.given_to(carry)
    return carry


def _as_type(value: Array, wanted: Any) -> Array:
    if _has_explicit_axes(wanted) and wanted.sharding != jax.typeof(value).sharding:
        value = jax.sharding.reshard(value, wanted.sharding)
    return _vary(value, _varying(wanted))


def _vary(value: Array, axes: frozenset[str]) -> Array:
    missing = tuple(sorted(axes - _varying(jax.typeof(value))))
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def _varying(of: Any) -> frozenset[str]:
    """The axes of jax.shard_map that an array of this type varies along."""
    return of.manual_axis_type.varying


def _is_placed(tree: Any) -> bool:
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    return any(_has_explicit_axes(of) or _varying(of) for of in types)


def _has_explicit_axes(of: Any) -> bool:
    return AxisType.Explicit in of.sharding.mesh.axis_types
