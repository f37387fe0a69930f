"""Arguments as flat lists of arrays, and what to call them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.subject.words import counted, describe, keystr
from handgrad.factors import is_factor

Leaves = list[Any]  # arrays, one for each leaf of a pytree
Function = Callable[..., Any]  # of anything, to anything: that of a user


class ProblemError(Exception):
    """Not a gradient at all, in one sentence; the cause, where there is one, is the function's own error.

    Attributes:
      culprit: "hand", or "reference" where that is what can't be used.
      in_reference: whether it was raised by the reference, which may be the function under test itself.
    """

    def __init__(self, message: str, culprit: Literal["hand", "reference"] = "hand", in_reference: bool = False):
        super().__init__(message)
        self.culprit: Literal["hand", "reference"] = culprit
        self.in_reference = in_reference or culprit == "reference"


def check_callable(what: str, f: object, or_none: bool = False) -> None:
    """Raise unless it is a function; None passes where that is a choice.

    Raises:
      ProblemError: it is something else.
    """
    if not (callable(f) or (or_none and f is None)):
        raise ProblemError(f"{what} must be a function{' or None' * or_none}, got {describe(f)}")


class Arguments:
    """Arguments as a flat list of arrays, and back.

    Args:
      names: the function's parameters, in order.
      args: pytrees. Arrays and Python floats are leaves; integers, strings and whatever else JAX can't trace as an
        array stay as they are. Positions in `fixed` stay as they are whole.
      dtype: what every floating-point leaf is cast to; None leaves them.
    """

    def __init__(self, names: Sequence[str], args: Sequence[Any], fixed: Sequence[int] = (), dtype: Any = None):
        self.count = len(args)
        arrays = [leaf.dtype for leaf in jax.tree.leaves(list(args)) if hasattr(leaf, "dtype") and is_inexact(leaf)]
        # A Python number takes the arrays' precision, as it does in JAX; float64's too, where 64-bit types are off.
        with jax.enable_x64(True):
            scalar = jnp.result_type(*arrays) if arrays else None
        self.treedefs, self.parts, self.fixed = [], [], {i: args[i] for i in fixed if i < len(args)}
        self.leaves: Leaves = []
        self.names: list[str] = []
        self.owner: list[int] = []  # the argument that each leaf belongs to
        for i, (name, arg) in enumerate(zip(names, args, strict=True)):
            with_path, treedef = jax.tree.flatten_with_path(() if i in self.fixed else arg)
            self.treedefs.append(treedef)
            parts = []
            for path, leaf in with_path:
                if not _is_array(leaf):
                    parts.append(("static", leaf))
                    continue
                parts.append(("leaf", len(self.leaves)))
                self.leaves.append(_as_leaf(leaf, dtype, scalar))
                self.names.append(".".join([name, *([keystr(path)] if path else [])]))
                self.owner.append(i)
            self.parts.append(parts)

    def rebuild(self, leaves: Leaves) -> list[Any]:
        """The arguments, with these leaves."""
        args = []
        for i, (treedef, parts) in enumerate(zip(self.treedefs, self.parts, strict=True)):
            filled = [leaves[value] if kind == "leaf" else value for kind, value in parts]
            args.append(self.fixed[i] if i in self.fixed else treedef.unflatten(filled))
        return args

    def leaves_of(self, args: Sequence[Any]) -> Leaves:
        """The flat list that `rebuild` made these arguments of."""
        leaves: Leaves = [None] * len(self.leaves)
        for i, (arg, parts) in enumerate(zip(args, self.parts, strict=True)):
            if i in self.fixed:
                continue
            for (kind, value), leaf in zip(parts, jax.tree.leaves(arg), strict=True):
                if kind == "leaf":
                    leaves[value] = leaf
        return leaves

    def differentiable(self) -> list[int]:
        """The positions of the leaves that have a gradient."""
        return [i for i, leaf in enumerate(self.leaves) if is_inexact(leaf)]

    def cotangents(self, where: str, args: Sequence[Any], returned: Any, zeros: set[int]) -> dict[int, Any]:
        """{position of a leaf: its cotangent}, factors multiplied out.

        Args:
          where: the backward pass, as errors call it.
          args: the arguments that the gradient is at.
          returned: one cotangent for each.
          zeros: is given the positions of the leaves whose cotangent is None.

        Raises:
          ProblemError: too few or too many, one of another structure than its argument, or one for an integer.
        """
        if not isinstance(returned, tuple | list):
            raise ProblemError(
                f"{where} must return a tuple of {counted(self.count, 'cotangent')}, got {describe(returned)}"
            )
        surplus = returned[self.count :]
        if len(returned) < self.count or any(extra is not None for extra in surplus):
            raise ProblemError(
                f"{where} must return {counted(self.count, 'cotangent')}, one for each argument, got {len(returned)}"
            )
        found: dict[int, Any] = {}
        given = self.leaves_of(args)
        for i, cotangent in enumerate(returned[: self.count]):
            mine = [(value if kind == "leaf" else None) for kind, value in self.parts[i]]
            if cotangent is None:
                leaves: list[Any] = [None] * len(mine)
            else:
                multiplied = jax.tree.map(lambda c: c.sum() if is_factor(c) else c, cotangent, is_leaf=is_factor)
                try:
                    leaves = self.treedefs[i].flatten_up_to(multiplied)
                except ValueError as error:
                    raise ProblemError(
                        f"{where}: cotangent {i} must have its argument's structure, {self.treedefs[i]}, got "
                        f"{jax.tree.structure(multiplied)}"
                    ) from error
            for position, leaf in zip(mine, leaves, strict=True):
                if position is None:
                    continue
                self._take(where, position, given[position], leaf, found, zeros)
        return found

    def _take(
        self, where: str, position: int, leaf: Any, cotangent: Any, found: dict[int, Any], zeros: set[int]
    ) -> None:
        if not is_inexact(leaf):
            if cotangent is not None and getattr(cotangent, "dtype", None) != jax.dtypes.float0:
                raise ProblemError(
                    f"{where}: {self.names[position]} is {leaf.dtype}, so its cotangent must be None or float0, got "
                    f"{describe(cotangent)}"
                )
        elif cotangent is not None and not hasattr(cotangent, "dtype") and not isinstance(cotangent, float | complex):
            name = self.names[position]
            raise ProblemError(f"{where}: the cotangent of {name} must be an array, got {describe(cotangent)}")
        elif cotangent is None:
            zeros.add(position)
            found[position] = jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf))
        else:
            found[position] = jnp.asarray(cotangent)


def differentiable(Y: Any) -> Leaves:
    """The leaves of an output that have a gradient."""
    return [jnp.asarray(y) for y in jax.tree.leaves(Y) if is_inexact(y)]


def cotangent_like(where: str, Y: Any, dYs: Leaves) -> Any:
    """The cotangent in Y's structure; the output's integers have none.

    Raises:
      ProblemError: Y has other leaves than the output that the cotangents are for.
    """
    flat, treedef = jax.tree.flatten(Y)
    count = sum(is_inexact(y) for y in flat)
    if count != len(dYs):
        raise ProblemError(
            f"{where}: the forward pass must return the {counted(len(dYs), 'output')} that the function itself "
            f"returns, got {count}"
        )
    given = iter(dYs)
    return treedef.unflatten(
        [next(given) if is_inexact(y) else np.zeros(jnp.shape(y), jax.dtypes.float0) for y in flat]
    )


def put(leaves: Leaves, positions: Sequence[int], values: Leaves) -> Leaves:
    """A copy of `leaves` with these values at these positions."""
    leaves = list(leaves)
    for i, value in zip(positions, values, strict=True):
        leaves[i] = value
    return leaves


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is real or complex floating point: what has a gradient."""
    dtype = getattr(leaf, "dtype", None)
    return isinstance(leaf, float | complex) if dtype is None else jnp.issubdtype(dtype, jnp.inexact)


def wide(dtype: Any) -> Any:
    """The widest dtype of its kind: what the truth is computed in."""
    return np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64


def widened(leaves: Leaves) -> Leaves:
    """Every floating-point leaf as float64 or complex128, as NumPy arrays."""
    return [np.asarray(leaf).astype(wide(leaf.dtype)) if is_inexact(leaf) else leaf for leaf in leaves]


def largest(array: Any) -> float:
    """max |array|, NaN left out; 0 of nothing."""
    array = np.abs(array)
    array = array[np.isfinite(array)] if not np.isfinite(np.max(array, initial=0.0)) else array
    return float(np.max(array, initial=0.0))


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex) and not isinstance(leaf, bool)


def _as_leaf(leaf: Any, dtype: Any, scalar: Any) -> Any:
    if not hasattr(leaf, "dtype"):
        own = jax.dtypes.canonicalize_dtype(type(leaf))
        leaf = np.asarray(leaf, scalar if isinstance(leaf, float) and scalar is not None else own)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf  # a random key: it has no numbers to show
    leaf = np.asarray(leaf)
    if dtype is not None and is_inexact(leaf):
        kind = jnp.complexfloating if np.dtype(dtype).kind != "c" else jnp.floating
        return leaf if jnp.issubdtype(leaf.dtype, kind) else leaf.astype(dtype)
    return leaf
