"""The gradient under test, flattened: what every check works on, in whatever form it was written."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.crosscheck.subject.arguments import (
    Arguments,
    Leaves,
    ProblemError,
    cotangent_like,
    counted,
    describe,
    differentiable,
    first_line,
    is_inexact,
    label,
    literal,
    parameter_names,
    put,
    wide,
)

# The arguments, written out -> the check's name, and what to call it with.
Call = Callable[[list[str]], tuple[str, list[str]]]


class Kept(NamedTuple):
    """A forward pass and what it keeps: pull(residuals, dYs) -> {position of a leaf: its cotangent}."""

    Ys: Leaves
    residuals: Any
    pull: Callable[[Any, Leaves], dict[int, Any]]


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
      keep: leaves -> Kept, where the function under test shows its residuals; None elsewhere.
      call: (leaves, seed) -> one line of Python that checks this gradient at these numbers.
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
    keep: Callable[[Leaves], Kept] | None = None
    call: Callable[[Leaves, int], str] = field(default=lambda leaves, seed: "", repr=False)
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


def from_rule(
    name: str | None,
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    args: Sequence[Any],
    reference: Callable[..., Any] | None,
    dtype: Any = None,
    argument_names: Sequence[str] | None = None,
    call: Call | None = None,
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

    def keep(args: list[Any]) -> Kept:
        Y, residuals = call_forward(*args)
        like = jax.eval_shape(lambda: Y)

        def pull(residuals: Any, dYs: Leaves) -> dict[int, Any]:
            return arguments.cotangents(back, backward(residuals, cotangent_like(like, dYs)), set())

        return Kept(differentiable(Y), residuals, pull)

    own = reference is None
    words = "autodiff of its own forward pass" if own else label(reference, "reference")
    primal = (lambda *args: call_forward(*args)[0]) if reference is None else reference
    beside = [] if own else [f"reference={words}"]
    call = call or (lambda given: ("check_rule", [where, back, *given, *beside]))
    return assemble(
        name or back, arguments, lambda *args: call_forward(*args)[0], by_hand, primal, words, call, keep=keep
    )


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
        try:
            params = layer.init(jax.random.key(seed), x)
        except Exception as error:
            raise ProblemError(f"{name}.init raised {first_line(error)}") from error

    def forward(params: Any, x: Any) -> Any:
        return layer.forward(params, x, key)

    def backward(residuals: Any, dy: Any) -> Any:
        returned = layer.backward(residuals, dy)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise ProblemError(f"{name}.backward must return (dx, dparams), got {describe(returned)}")
        return returned[::-1]

    beside = [] if reference is None else [f"reference={label(reference, 'reference')}"]

    def call(given: list[str]) -> tuple[str, list[str]]:
        return "check_layer", [name, given[1], f"params={given[0]}", *beside]

    return from_rule(name, forward, backward, (params, x), reference, dtype, ("params", "x"), call)


def from_model(
    name: str, model: Any, loss: Any, args: tuple[Any, Any, Any, Any], key: Any = None, dtype: Any = None
) -> Problem:
    """The problem of a network under a loss: (params, x, target, weights) -> each example's weighted loss, to be
    differentiated by params and x."""
    for value, words in ((model, "model"), (loss, "loss")):
        if not all(callable(getattr(value, part, None)) for part in ("forward", "backward")):
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

    def call(given: list[str]) -> tuple[str, list[str]]:
        return "check_model", [name, "loss", *given[:3], f"weights={given[3]}"]

    return assemble(name, arguments, forward, by_hand, forward, "autodiff of its own forward pass", call, wanted)


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
        leaves = arguments.leaves_of(args)

        def of_wanted(chosen: Leaves) -> Any:
            return f(*arguments.rebuild(put(leaves, wanted, chosen)), **keywords)

        Y, pull = jax.vjp(of_wanted, [leaves[i] for i in wanted])
        return Y, dict(zip(wanted, pull(dY_of(Y))[0], strict=True))

    base = plain if reference is None else reference
    words = "the function that it wraps" if reference is None else label(reference, "reference")

    beside = [f"keywords={keywords!r}"] if keywords else []

    def target(*args: Any) -> Any:
        return base(*args, **keywords)  # pyright: ignore[reportOptionalCall]

    return assemble(
        name or label(f, "f"),
        arguments,
        lambda *args: f(*args, **keywords),
        by_hand,
        target,
        words,
        lambda given: ("check_custom_vjp", [label(f, "f"), "None" if reference is None else words, *given, *beside]),
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
    single = not isinstance(argnums, Sequence)
    chosen = tuple(operator.index(i) for i in ((argnums,) if single else argnums))
    if not all(-len(args) <= i < len(args) for i in chosen):
        raise ProblemError(f"argnums must be among the {counted(len(args), 'argument')}, got {argnums!r}")
    chosen = tuple(i % len(args) for i in chosen)
    wanted = [i for i in arguments.differentiable() if arguments.owner[i] in chosen]

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        Y = f(*args)
        if jnp.shape(Y) != () or not jnp.issubdtype(jnp.result_type(Y), jnp.floating):
            raise ProblemError(f"{label(f, 'f')} must return a real scalar, got {describe(Y)}")
        returned = grad_f(*args)
        if single:
            returned = (returned,)
        if not isinstance(returned, tuple | list) or len(returned) != len(chosen):
            raise ProblemError(f"{where} must return {counted(len(chosen), 'gradient')}, got {describe(returned)}")
        full: list[Any] = [None] * len(args)
        for i, gradient in zip(chosen, returned, strict=True):
            full[i] = gradient
        found = arguments.cotangents(where, tuple(full), zeros)
        return Y, {i: (dY_of(Y) * found[i]).astype(found[i].dtype) for i in wanted}

    words = f"jax.grad of {label(f, 'f')}"

    def call(given: list[str]) -> tuple[str, list[str]]:
        return "check_function", [label(f, "f"), where, *given, f"argnums={argnums!r}"]

    return assemble(name or where, arguments, f, by_hand, f, words, call, wanted)


def assemble(
    name: str,
    arguments: Arguments,
    forward: Callable[..., Any],
    by_hand: Callable[[list[Any], Callable[[Any], Any], set[int]], tuple[Any, dict[int, Any]]],
    reference: Callable[..., Any],
    words: str,
    call: Call,
    wanted: list[int] | None = None,
    keep: Callable[[list[Any]], Any] | None = None,
    carries_its_gradient: bool = False,
) -> Problem:
    """What all forms have in common: from functions of arguments to functions of flat lists of arrays."""
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

    def plain(leaves: Leaves) -> Leaves:
        return differentiable(forward(*arguments.rebuild(leaves)))

    kept = None if keep is None else lambda leaves: keep(arguments.rebuild(leaves))

    def written_out(leaves: Leaves, seed: int) -> str:
        function, given = call([literal(arg) for arg in arguments.rebuild(leaves)])
        return f"{function}({', '.join([*given, f'seed={seed}'])})"

    return Problem(
        name=name,
        leaves=arguments.leaves,
        names=arguments.names,
        wanted=wanted,
        run=run,
        forward=lambda leaves: forward(*arguments.rebuild(leaves)),
        target=lambda leaves: reference(*arguments.rebuild(leaves)),
        reference=words,
        x64=x64,
        differentiable=plain if carries_its_gradient else _with_gradient(plain, run, wanted, kept),
        keep=kept,
        call=written_out,
        zeros=zeros,
    )


def _with_gradient(
    plain: Callable[[Leaves], Leaves],
    run: Callable[[Leaves, Leaves], tuple[Leaves, Leaves]],
    wanted: list[int],
    kept: Callable[[Leaves], Kept] | None,
) -> Callable[[Leaves], Leaves]:
    """`plain` with the gradient by hand as its own: from what the forward pass keeps, where it shows that."""
    pulls = []  # how to pull back is no array: it goes past JAX, from the forward pass traced last to its backward pass

    def forward(leaves: Leaves) -> tuple[Leaves, Any]:
        if kept is None:
            return plain(leaves), leaves
        there = kept(leaves)
        pulls.append(there.pull)
        return there.Ys, (there.residuals, leaves)

    def backward(residuals: Any, dYs: Leaves) -> tuple[Leaves]:
        if kept is None:
            leaves, found = residuals, run(residuals, dYs)[1]
        else:
            residuals, leaves = residuals
            by_position = pulls[-1](residuals, dYs)
            found = [by_position[i] for i in wanted]
        cotangents: Leaves = [None] * len(leaves)
        return (put(cotangents, wanted, found),)

    f = jax.custom_vjp(plain)
    f.defvjp(forward, backward)
    return f
