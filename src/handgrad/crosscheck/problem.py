"""The gradient under test, flattened: what every check works on, whoever wrote it and in whatever form."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.factors import is_factor

Leaves = list[Any]  # arrays, one for each leaf of a pytree

# What a program raises that asks a traced array for its numbers: it may still be right when run step by step.
NEEDS_NUMBERS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.UnexpectedTracerError,
)


class ProblemError(Exception):
    """Not a gradient at all, in one sentence; the cause, where there is one, is the function's own error."""


@dataclass
class Problem:
    """A gradient under test as functions of flat lists of arrays.

    Attributes:
      name: what is checked.
      leaves: every array among the arguments; what isn't an array is settled inside the functions.
      names: the leaves' paths, as "params.0.W".
      wanted: positions of the leaves that a gradient is wanted of.
      run: (leaves, dYs) -> (Ys, cotangents), by hand: Ys the output's leaves that have a gradient, one cotangent for
        each wanted leaf, in whatever shape it came.
      forward: leaves -> the output by hand, in its own structure.
      target: leaves -> the output of the reference, in its own structure.
      reference: in words, where the reference comes from.
      x64: whether `run` needs 64-bit types. Without them it runs as its author sees it run: a `jnp.zeros(3)` in it is
        float32.
      differentiable: leaves -> Ys, whose gradient under jax.vjp is the one by hand.
      keep: leaves -> residuals, where the function under test shows them; None elsewhere.
      zeros: filled while `run` is traced: positions of wanted leaves whose cotangent is None, which JAX takes for 0.
    """

    name: str
    leaves: Leaves
    names: list[str]
    wanted: list[int]
    run: Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]
    forward: Callable[[Leaves], Any]
    target: Callable[[Leaves], Any]
    reference: str
    x64: bool
    differentiable: Callable[[Leaves], Leaves]
    keep: Callable[[Leaves], tuple[Any, Callable[[Leaves], Any]]] | None = None
    zeros: set[int] = field(default_factory=set)

    def primal(self, leaves: Leaves) -> Leaves:
        """The reference's output: its leaves that have a gradient."""
        return differentiable(self.target(leaves))

    def pullback(self, leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        """What `run` returns, by jax.vjp of the reference."""

        def of_wanted(chosen: Leaves) -> Leaves:
            return self.primal(put(leaves, self.wanted, chosen))

        Ys, pull = jax.vjp(of_wanted, [jnp.asarray(leaves[i]) for i in self.wanted])
        return Ys, pull([dY.astype(Y.dtype) for dY, Y in zip(dYs, Ys, strict=True)])[0]

    @property
    def wanted_names(self) -> list[str]:
        """The names of the leaves that a gradient is wanted of."""
        return [self.names[i] for i in self.wanted]


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
        self.treedefs, self.parts, self.fixed = [], [], {i: args[i] for i in fixed}
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
                self.leaves.append(_as_leaf(leaf, dtype))
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

    def differentiable(self) -> list[int]:
        """The positions of the leaves that have a gradient."""
        return [i for i, leaf in enumerate(self.leaves) if is_inexact(leaf)]

    def cotangents(self, where: str, returned: Sequence[Any], zeros: set[int]) -> dict[int, Any]:
        """{position of a leaf: its cotangent}, factors multiplied out; a cotangent for each argument came.

        Raises:
          ProblemError: too few or too many, one of another structure than its argument, or one for an integer.
        """
        if not isinstance(returned, tuple | list):
            raise ProblemError(
                f"{where} must return a tuple of {_count(self.count, 'cotangent')}, got {describe(returned)}"
            )
        surplus = returned[self.count :]
        if len(returned) < self.count or any(extra is not None for extra in surplus):
            raise ProblemError(
                f"{where} must return {_count(self.count, 'cotangent')}, one for each argument, got {len(returned)}"
            )
        found: dict[int, Any] = {}
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
                self._take(where, position, leaf, found, zeros)
        return found

    def _take(self, where: str, position: int, cotangent: Any, found: dict[int, Any], zeros: set[int]) -> None:
        leaf = self.leaves[position]
        if not is_inexact(leaf):
            if cotangent is not None and getattr(cotangent, "dtype", None) != jax.dtypes.float0:
                raise ProblemError(
                    f"{where}: {self.names[position]} is {leaf.dtype}, so its cotangent must be None or float0, got "
                    f"{describe(cotangent)}"
                )
        elif cotangent is None:
            zeros.add(position)
            found[position] = jnp.zeros(leaf.shape, leaf.dtype)
        else:
            if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
                cotangent = jnp.zeros(cotangent.aval.shape, cotangent.aval.dtype)
            found[position] = jnp.asarray(cotangent)


def from_rule(
    name: str | None,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Sequence[Any],
    reference: Callable[..., Any] | None,
    dtype: Any = None,
    argument_names: Sequence[str] | None = None,
) -> Problem:
    """The problem of a (forward, backward) pair; without a reference, autodiff of the forward pass itself is it."""
    where, back = label(forward, "forward"), label(backward, "backward")
    arguments = Arguments(argument_names or parameter_names(forward, len(args)), args, dtype=dtype)

    def call_forward(*args: Any) -> tuple[Any, Any]:
        out = forward(*args)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise ProblemError(f"{where} must return (output, residuals), got {describe(out)}")
        return out

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        Y, residuals = call_forward(*args)
        return Y, arguments.cotangents(back, backward(residuals, dY_of(Y)), zeros)

    def keep(args: list[Any]) -> tuple[Any, Callable[[Leaves], Any]]:
        Y, residuals = call_forward(*args)
        return residuals, lambda dYs: backward(residuals, cotangent_like(Y, dYs))

    own = reference is None
    words = "autodiff of its own forward pass" if own else label(reference, "reference")
    primal = (lambda *args: call_forward(*args)[0]) if reference is None else reference
    return assemble(name or back, arguments, lambda *args: call_forward(*args)[0], by_hand, primal, words, keep=keep)


def from_layer(
    name: str,
    layer: Any,
    x: Any,
    params: Any,
    key: Any,
    reference: Callable[..., Any] | None,
    seed: int = 0,
    dtype: Any = None,
) -> Problem:
    """The problem of a layer, its arguments being params and x."""
    missing = [part for part in ("init", "forward", "backward") if not callable(getattr(layer, part, None))]
    if missing:
        raise ProblemError(f"{name} must have init, forward and backward, got {describe(layer)} without {missing[0]}")
    if params is None:
        params = layer.init(jax.random.key(seed), x)

    def forward(params: Any, x: Any) -> Any:
        return layer.forward(params, x, key)

    def backward(residuals: Any, dy: Any) -> Any:
        returned = layer.backward(residuals, dy)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise ProblemError(f"{name}.backward must return (dx, dparams), got {describe(returned)}")
        return returned[::-1]

    return from_rule(name, forward, backward, (params, x), reference, dtype, ("params", "x"))


def from_model(
    name: str,
    model: Any,
    loss: Any,
    args: tuple[Any, Any, Any, Any],
    key: Any = None,
    dtype: Any = None,
) -> Problem:
    """The problem of a network under a loss: (params, x, target, weights) -> each example's weighted loss, to be
    differentiated by params and x."""
    for value, words, needed in ((model, "model", ("forward", "backward")), (loss, "loss", ("forward", "backward"))):
        missing = [part for part in needed if not callable(getattr(value, part, None))]
        if missing:
            raise ProblemError(f"{name}: {words} must have forward and backward, got {describe(value)}")
    arguments = Arguments(("params", "x", "target", "weights"), args, dtype=dtype)
    wanted = [i for i in arguments.differentiable() if arguments.owner[i] in (0, 1)]

    def forward(params: Any, x: Any, target: Any, weights: Any) -> Any:
        losses, _ = loss.forward(model.forward(params, x, key)[0], target)
        return losses if weights is None else losses * weights

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        params, x, target, weights = args
        prediction, residuals = model.forward(params, x, key)
        losses, of_loss = loss.forward(prediction, target)
        Y = losses if weights is None else losses * weights
        dlosses = dY_of(Y) if weights is None else dY_of(Y) * weights
        dx, dparams = model.backward(residuals, loss.backward(of_loss, dlosses))
        return Y, arguments.cotangents(f"{name}.backward", (dparams, dx, None, None), zeros)

    return assemble(name, arguments, forward, by_hand, forward, "autodiff of its own forward pass", wanted)


def from_custom_vjp(
    name: str | None,
    f: Callable[..., Any],
    reference: Callable[..., Any] | None,
    args: Sequence[Any],
    keywords: dict[str, Any],
    dtype: Any = None,
) -> Problem:
    """The problem of a function that carries its own gradient; without a reference, the function it wraps is it."""
    plain = getattr(f, "fun", None) or getattr(f, "__wrapped__", None)
    if reference is None and plain is None:
        raise ProblemError(f"{label(f, 'f')} must be a jax.custom_vjp function, or come with a reference")
    arguments = Arguments(parameter_names(plain or f, len(args)), args, getattr(f, "nondiff_argnums", ()), dtype)
    wanted = arguments.differentiable()

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        leaves = _leaves_of(arguments, args)

        def of_wanted(chosen: Leaves) -> Any:
            return f(*arguments.rebuild(put(leaves, wanted, chosen)), **keywords)

        Y, pull = jax.vjp(of_wanted, [leaves[i] for i in wanted])
        return Y, dict(zip(wanted, pull(dY_of(Y))[0], strict=True))

    base = plain if reference is None else reference
    words = "the function that it wraps" if reference is None else label(reference, "reference")

    def target(*args: Any) -> Any:
        return base(*args, **keywords)  # pyright: ignore[reportOptionalCall]

    return assemble(
        name or label(f, "f"),
        arguments,
        lambda *args: f(*args, **keywords),
        by_hand,
        target,
        words,
        carries_its_gradient=True,
    )


def from_function(
    name: str | None,
    f: Callable[..., Any],
    grad_f: Callable[..., Any],
    args: Sequence[Any],
    argnums: int | Sequence[int],
    dtype: Any = None,
) -> Problem:
    """The problem of a gradient of a scalar function, as jax.grad would give it."""
    where = label(grad_f, "grad_f")
    arguments = Arguments(parameter_names(f, len(args)), args, dtype=dtype)
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not all(-len(args) <= i < len(args) for i in chosen):
        raise ProblemError(f"argnums must be among the {_count(len(args), 'argument')}, got {argnums!r}")
    chosen = tuple(i % len(args) for i in chosen)
    wanted = [i for i in arguments.differentiable() if arguments.owner[i] in chosen]

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        Y = f(*args)
        if jnp.shape(Y) != () or not jnp.issubdtype(jnp.result_type(Y), jnp.floating):
            raise ProblemError(f"{label(f, 'f')} must return a real scalar, got {describe(Y)}")
        returned = grad_f(*args)
        if isinstance(argnums, int):
            returned = (returned,)
        if not isinstance(returned, tuple | list) or len(returned) != len(chosen):
            raise ProblemError(f"{where} must return {_count(len(chosen), 'gradient')}, got {describe(returned)}")
        full: list[Any] = [None] * len(args)
        for i, gradient in zip(chosen, returned, strict=True):
            full[i] = gradient
        found = arguments.cotangents(where, tuple(full), zeros)
        return Y, {i: (dY_of(Y) * found[i]).astype(found[i].dtype) for i in wanted}

    return assemble(name or where, arguments, f, by_hand, f, f"jax.grad of {label(f, 'f')}", wanted)


def assemble(
    name: str,
    arguments: Arguments,
    forward: Callable[..., Any],
    by_hand: Callable[[list[Any], Callable[[Any], Any], set[int]], tuple[Any, dict[int, Any]]],
    reference: Callable[..., Any],
    words: str,
    wanted: list[int] | None = None,
    keep: Callable[[list[Any]], Any] | None = None,
    carries_its_gradient: bool = False,
) -> Problem:
    """What the three forms have in common: from functions of arguments to functions of flat lists of arrays."""
    wanted = arguments.differentiable() if wanted is None else wanted
    if not wanted:
        raise ProblemError(f"{name}: there must be a floating-point argument to differentiate, got none")
    for i, leaf in enumerate(arguments.leaves):
        if is_inexact(leaf) and not np.all(np.isfinite(np.asarray(leaf, wide(leaf.dtype)))):
            raise ProblemError(f"{name}: {arguments.names[i]} must be finite, got NaN or infinity in the input")
    zeros: set[int] = set()
    x64 = bool(jax.config.jax_enable_x64) or any(  # pyright: ignore[reportAttributeAccessIssue]
        leaf.dtype in (np.float64, np.complex128) for leaf in arguments.leaves
    )

    def run(leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        Y, found = by_hand(arguments.rebuild(leaves), lambda Y: cotangent_like(Y, dYs), zeros)
        return differentiable(Y), [found[i] for i in wanted]

    @jax.custom_vjp
    def wrapped(leaves: Leaves) -> Leaves:
        return differentiable(forward(*arguments.rebuild(leaves)))

    def wrapped_backward(leaves: Leaves, dYs: Leaves) -> tuple[Leaves]:
        cotangents: Leaves = [None] * len(leaves)
        return (put(cotangents, wanted, run(leaves, dYs)[1]),)

    wrapped.defvjp(lambda leaves: (wrapped(leaves), leaves), wrapped_backward)
    return Problem(
        name,
        arguments.leaves,
        arguments.names,
        wanted,
        run,
        lambda leaves: forward(*arguments.rebuild(leaves)),
        lambda leaves: reference(*arguments.rebuild(leaves)),
        words,
        x64,
        (lambda leaves: differentiable(forward(*arguments.rebuild(leaves)))) if carries_its_gradient else wrapped,
        None if keep is None else lambda leaves: keep(arguments.rebuild(leaves)),
        zeros,
    )


def _leaves_of(arguments: Arguments, args: list[Any]) -> Leaves:
    """The flat list that `rebuild` made these arguments of."""
    leaves: Leaves = [None] * len(arguments.leaves)
    for arg, parts, i in zip(args, arguments.parts, range(len(args)), strict=True):
        if i in arguments.fixed:
            continue
        for (kind, value), leaf in zip(parts, jax.tree.leaves(arg), strict=True):
            if kind == "leaf":
                leaves[value] = leaf
    return leaves


def differentiable(Y: Any) -> Leaves:
    """The leaves of an output that have a gradient."""
    return [jnp.asarray(y) for y in jax.tree.leaves(Y) if is_inexact(y)]


def cotangent_like(Y: Any, dYs: Leaves) -> Any:
    """The cotangent in Y's structure; the output's integers have none."""
    flat, treedef = jax.tree.flatten(Y)
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


def label(f: Any, otherwise: str) -> str:
    """What to call a function."""
    while hasattr(f, "func") and not hasattr(f, "__name__"):  # functools.partial
        f = f.func
    name = getattr(f, "__name__", None)
    return otherwise if name in (None, "<lambda>") else name


def parameter_names(f: Callable[..., Any], count: int) -> list[str]:
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


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float | complex) and not isinstance(leaf, bool)


def _as_leaf(leaf: Any, dtype: Any) -> Any:
    if isinstance(leaf, float | complex) and not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf, jax.dtypes.canonicalize_dtype(type(leaf)))
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return leaf  # a random key: it has no numbers to show
    leaf = np.asarray(leaf)
    if dtype is not None and is_inexact(leaf):
        kind = jnp.complexfloating if np.dtype(dtype).kind != "c" else jnp.floating
        return leaf if jnp.issubdtype(leaf.dtype, kind) else leaf.astype(dtype)
    return leaf
