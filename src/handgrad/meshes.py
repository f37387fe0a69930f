"""Sharding: the same code on one device, under Explicit or Auto mesh axes, and inside jax.shard_map.

Auto axes need nothing: the compiler decides. Explicit axes are part of an array's type, so a sum over a sharded axis, a
gather or a scatter must specify the sharding of its result, and the initial carry of a scan must have the type of the
carry that its body returns. Inside jax.shard_map the same holds for the axes along which an array varies. On one device
all of these functions are the plain operation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Int, PyTree, Shaped

MeshAxes = str | tuple[str, ...] | None  # that shard one axis of an array
T = TypeVar("T")
C = TypeVar("C")
X = TypeVar("X")


def einsum(subscripts: str, A: Array, B: Array, dtype: DTypeLike | None = None) -> Array:
    """jnp.einsum of two arrays, summed in `dtype`; an axis of the result is sharded as the axis that it comes from."""
    inputs, _, output = subscripts.partition("->")
    axes = dict[str | int, MeshAxes]()
    for letters, array in zip(inputs.split(","), (A, B), strict=True):
        for letter, names in zip(_letters(letters, array.ndim), spec(array), strict=True):
            axes[letter] = axes.get(letter) or names
    most = max(A.ndim, B.ndim)  # an ellipsis of the result has as many axes as the longer of the operands'
    out = [axes[letter] for letter in _letters(output, len(output) + most) if letter in axes]
    return along(out, partial(jnp.einsum, subscripts, preferred_element_type=dtype), A, B)


def matmul(
    A: Shaped[Array, "*rows n"], B: Shaped[Array, "n m"], dtype: DTypeLike | None = None
) -> Shaped[Array, "*rows m"]:
    """A B, summed in `dtype`."""
    if any(spec(A)) or any(spec(B)):
        return einsum("...n,nm->...m", A, B, dtype)
    return jnp.matmul(A, B, preferred_element_type=dtype)


def inner(
    A: Shaped[Array, "*rows m"], B: Shaped[Array, "n m"], dtype: DTypeLike | None = None
) -> Shaped[Array, "*rows n"]:
    """A Bᵀ, summed in `dtype`. (B.T is materialized where B is a slice of a stack.)"""
    if any(spec(A)) or any(spec(B)):
        return einsum("...m,nm->...n", A, B, dtype)
    return jnp.inner(A, B, preferred_element_type=dtype)


def take_rows(table: Shaped[Array, "rows ..."], ids: Int[Array, "*shape"], fill_value: float) -> Array:
    """table[ids] along the first axis; out-of-bounds ids give rows of `fill_value`."""

    def take(table: Array, ids: Array) -> Array:
        return table.at[ids].get(mode="fill", fill_value=fill_value)

    return along([*spec(ids), *spec(table)[1:]], take, table, ids)


def with_rows(table: Shaped[Array, "..."], ids: Int[Array, " k"], rows: Shaped[Array, "k ..."]) -> Array:
    """The table with these rows in the places that distinct ids name; those of out-of-bounds ids are dropped."""

    def put(table: Array, ids: Array, rows: Array) -> Array:
        return table.at[ids].set(rows, mode="drop")

    return along(spec(table), put, table, ids, rows)


def segment_sum(Delta: Shaped[Array, "*shape n"], ids: Int[Array, "*shape"], rows: int) -> Shaped[Array, "{rows} n"]:
    """Row i is the sum of the rows of Delta whose id is i; ids outside 0 … rows − 1 are dropped."""

    def add(Delta: Array, ids: Array) -> Array:
        return jnp.zeros((rows, Delta.shape[-1]), Delta.dtype).at[ids].add(Delta, mode="drop")

    return along([None, spec(Delta)[-1]], add, Delta, ids)


def first(A: Array) -> Shaped[Array, ""]:
    """The first element, or 0 where there is none."""
    return along([], lambda A: jnp.sum(A.reshape(-1)[:1]), A)


def along_batch(function: Callable[..., T], *arrays: PyTree[Array]) -> T:
    """function(*arrays), a function of each example alone; results are sharded along the batch as the arrays are."""
    return along([next((spec(a)[0] for a in jax.tree.leaves(arrays) if any(spec(a))), None)], function, *arrays)


def along(axes: Sequence[MeshAxes], function: Callable[..., T], *arrays: PyTree[Array]) -> T:
    """function(*arrays), the result sharded over these mesh axes: for operations that can't infer this from the
    operands' Explicit axes, which are Auto inside."""
    out = placed(jax.tree.leaves(arrays), axes)
    if out is None:
        return function(*arrays)
    explicit: Any = jax.sharding.auto_axes(function, out_sharding=out)
    return explicit(*arrays)


def scan(
    body: Callable[[C, X], tuple[C, T]], carry: C, xs: X, length: int | None = None, reverse: bool = False
) -> tuple[C, T]:
    """jax.lax.scan; the initial carry gets the sharding, and the varying axes, of the carry that `body` returns."""
    if is_placed((carry, xs)) and all(len(a) for a in jax.tree.leaves(xs)):
        carry = _settled(lambda carry: body(carry, jax.tree.map(lambda a: a[0], xs))[0], carry)
    return jax.lax.scan(body, carry, xs, length, reverse)


def fori_loop(count: int | Array, body: Callable[[Array, T], T], carry: T, *closed_over: PyTree[Array]) -> T:
    """jax.lax.fori_loop from 0, its carry as in `scan`; `closed_over` are the arrays that `body` closes over."""
    if is_placed((carry, closed_over)):
        carry = _settled(lambda carry: body(jnp.asarray(0), carry), carry)
    return jax.lax.fori_loop(0, count, body, carry)


def while_loop(going: Callable[[T], Array], body: Callable[[T], T], carry: T, *closed_over: PyTree[Array]) -> T:
    """jax.lax.while_loop, its carry as in `scan`; `closed_over` are the arrays that `body` closes over."""
    if is_placed((carry, closed_over)):
        carry = _settled(body, carry)
    return jax.lax.while_loop(going, body, carry)


def spec(A: Array) -> tuple[MeshAxes, ...]:
    """The Explicit mesh axes that shard each axis of A."""
    return tuple(jax.typeof(A).sharding.spec)


def axis_names(axis: MeshAxes) -> tuple[str, ...]:
    """The mesh axes that shard one axis of an array: of one entry of a PartitionSpec."""
    return axis if isinstance(axis, tuple) else (axis,) if axis else ()


def placed(arrays: Sequence[Array], axes: Sequence[MeshAxes]) -> NamedSharding | None:
    """The sharding of a result over these mesh axes, on the mesh of the arrays; None where they have none.

    A mesh axis that is named twice shards the last of the two: the outputs of a weight's gradient, as of the weight.
    """
    meshes = [s.mesh for s in (jax.typeof(A).sharding for A in arrays) if not s.mesh.empty]
    if not meshes or not any(any(spec(A)) for A in arrays):
        return None
    seen, once = set[str](), []
    for names in reversed(axes):
        once.append(_without(names, seen))
        seen.update(axis_names(names))
    return NamedSharding(meshes[0], PartitionSpec(*reversed(once)))


def places(tree: PyTree[Array], batch: int) -> int:
    """An upper bound of the devices that hold a batch, a divisor of its examples: those of the arrays' mesh where its
    axes are Explicit, else all, since the type of a traced array does not have its Auto axes."""
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(tree) if any(spec(leaf))]
    return math.gcd(batch, meshes[0].size if meshes else jax.device_count())


def gathered(params: PyTree[Array], x: PyTree[Array]) -> PyTree[Array]:
    """Parameters all-gathered along the mesh axes that shard the batch, as in fully sharded data parallelism (FSDP).
    Under Auto axes the compiler decides."""
    of_batch = {name for a in jax.tree.leaves(x) for name in axis_names(spec(a)[0])}

    def gather(p: Array) -> Array:
        if of_batch.isdisjoint(name for names in spec(p) for name in axis_names(names)):
            return p
        return jax.sharding.reshard(p, placed((p,), [_without(names, of_batch) for names in spec(p)]))

    return jax.tree.map(gather, params)


def beside(arrays: PyTree[Array], tree: PyTree[Array]) -> PyTree[Array]:
    """`tree`, its arrays without a mesh replicated on that of `arrays`, where its axes are Explicit: an in-place update
    needs both on one mesh."""
    meshes = [jax.typeof(a).sharding.mesh for a in jax.tree.leaves(arrays) if _has_explicit_axes(jax.typeof(a))]

    def put(a: Array) -> Array:
        if not meshes or not jax.typeof(a).sharding.mesh.empty:
            return a
        return jax.sharding.reshard(a, NamedSharding(meshes[0], PartitionSpec(*spec(a))))

    return jax.tree.map(put, tree)


def replicated(tree: PyTree[Array]) -> PyTree[Array]:
    """Every array replicated on every device."""
    return jax.tree.map(lambda a: jax.sharding.reshard(a, placed((a,), [None] * a.ndim)) if any(spec(a)) else a, tree)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Types:
    """The types of a pytree's arrays, with their shardings; static, so that residuals may hold them."""

    leaves: tuple[ShapedArray, ...]
    structure: Any  # a PyTreeDef

    @classmethod
    def of(cls, tree: PyTree[Array]) -> "Types":
        leaves, structure = jax.tree.flatten(tree)
        return cls(tuple(map(jax.typeof, leaves)), structure)

    def given_to(self, values: PyTree[Array | None]) -> PyTree[Array | None]:
        """Every array of `values` resharded, and made varying, to match the type in its place; None stays None."""
        types = jax.tree.unflatten(self.structure, self.leaves)
        return jax.tree.map(
            lambda value, wanted: None if value is None else _as_type(value, wanted),
            values,
            types,
            is_leaf=lambda value: value is None,
        )


def varying_together(tree: PyTree[Array]) -> PyTree[Array]:
    """Every array of numbers of `tree` made varying along all axes of shard_map that any array varies along."""
    axes = frozenset().union(*(_varying(jax.typeof(leaf)) for leaf in jax.tree.leaves(tree)))
    if not axes:
        return tree
    return jax.tree.map(lambda leaf: _vary(leaf, axes) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, tree)


def is_placed(tree: PyTree[Array]) -> bool:
    """Whether arrays have Explicit axes or vary along those of shard_map."""
    types = [jax.typeof(leaf) for leaf in jax.tree.leaves(tree)]
    return any(_has_explicit_axes(of) or _varying(of) for of in types)


def _without(axis: MeshAxes, names: set[str]) -> MeshAxes:
    """The same but for some mesh axes, as a PartitionSpec writes it."""
    left = tuple(name for name in axis_names(axis) if name not in names)
    return left if len(left) > 1 else left[0] if left else None


def _letters(subscripts: str, ndim: int) -> list[str | int]:
    """One letter for each axis; the axes that an ellipsis stands for are numbered from the last."""
    before, dots, behind = subscripts.partition("...")
    return [*before, *range(len(before) + len(behind) - ndim, 0), *behind] if dots else [*before]


def _settled(step: Callable[[T], T], carry: T) -> T:
    """The carry with the types that `step` returns; a second step may change them once more."""
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


def _as_type(value: Array, wanted: ShapedArray) -> Array:
    if _has_explicit_axes(wanted) and wanted.sharding != jax.typeof(value).sharding:
        value = jax.sharding.reshard(value, wanted.sharding)
    return _vary(value, _varying(wanted))


def _vary(value: Array, axes: frozenset[str]) -> Array:
    missing = tuple(sorted(axes - _varying(jax.typeof(value))))
    return jax.lax.pcast(value, missing, to="varying") if missing else value


def _varying(of: ShapedArray) -> frozenset[str]:
    """The axes of jax.shard_map that an array of this type varies along."""
    return of.manual_axis_type.varying


def _has_explicit_axes(of: ShapedArray) -> bool:
    return AxisType.Explicit in of.sharding.mesh.axis_types
