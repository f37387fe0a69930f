"""The forms that a gradient is written in: a rule, a layer, a network, a custom_vjp function, a gradient function."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.crosscheck.subject.arguments import (
    Arguments,
    Function,
    Leaves,
    ProblemError,
    cotangent_like,
    differentiable,
    put,
)
from handgrad.crosscheck.subject.problem import Call, Form, Kept, Problem, assemble
from handgrad.crosscheck.subject.words import counted, describe, first_line, label, parameter_names

Argnums = int | Sequence[int] | None

OWN = "autodiff of its own forward pass"


def from_rule(
    name: str | None,
    forward: Function,
    backward: Function,
    args: Sequence[Any],
    reference: Function | None,
    dtype: Any = None,
    argnums: Argnums = None,
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
        return Y, arguments.cotangents(back, args, backward(residuals, dY_of(Y)), zeros)

    def keep(args: list[Any]) -> Kept:
        Y, residuals = call_forward(*args)
        like = jax.eval_shape(lambda: Y)

        def pull(residuals: Any, dYs: Leaves) -> dict[int, Any]:
            return arguments.cotangents(back, args, backward(residuals, cotangent_like(back, like, dYs)), set())

        return Kept(differentiable(Y), residuals, pull)

    own = reference is None
    words = OWN if own else label(reference, "reference")
    beside = [] if own else [f"reference={words}"]
    return assemble(
        Form(
            name=name or back,
            arguments=arguments,
            forward=lambda *args: call_forward(*args)[0],
            by_hand=by_hand,
            reference=(lambda *args: call_forward(*args)[0]) if reference is None else reference,
            words=words,
            own_reference=own,
            call=call or (lambda given: ("check_rule", [where, back, *given, *beside])),
            wanted=_wanted(arguments, argnums),
            keep=keep,
        )
    )


def from_layer(
    name: str, layer: Any, x: Any, params: Any, key: Any, reference: Function | None, seed: int = 0, dtype: Any = None
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

    return from_rule(name, forward, backward, (params, x), reference, dtype, None, ("params", "x"), call)


def from_model(
    name: str, model: Any, loss: Any, args: tuple[Any, Any, Any, Any], key: Any = None, dtype: Any = None
) -> Problem:
    """The problem of a network under a loss: (params, x, target, weights) -> each example's weighted loss, to be
    differentiated by params and x."""
    for value, words in ((model, "model"), (loss, "loss")):
        if not all(callable(getattr(value, part, None)) for part in ("forward", "backward")):
            raise ProblemError(f"{name}: {words} must have forward and backward, got {describe(value)}")
    arguments = Arguments(("params", "x", "target", "weights"), args, dtype=dtype)

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
        return Y, arguments.cotangents(f"{name}.backward", args, (dparams, dx, None, None), zeros)

    def call(given: list[str]) -> tuple[str, list[str]]:
        return "check_model", [name, "loss", *given[:3], f"weights={given[3]}"]

    return assemble(
        Form(name, arguments, forward, by_hand, forward, OWN, True, call, wanted=_wanted(arguments, (0, 1)))
    )


def from_custom_vjp(
    name: str | None,
    f: Function,
    reference: Function | None,
    args: Sequence[Any],
    keywords: dict[str, Any],
    dtype: Any = None,
    argnums: Argnums = None,
) -> Problem:
    """The problem of a function that carries its own gradient; without a reference, the function it wraps is it."""
    plain = getattr(f, "fun", None) or getattr(f, "__wrapped__", None)
    if reference is None and plain is None:
        raise ProblemError(f"{label(f, 'f')} must be a jax.custom_vjp function, or come with a reference")
    arguments = Arguments(parameter_names(plain or f, len(args)), args, getattr(f, "nondiff_argnums", ()), dtype)
    chosen = _wanted(arguments, argnums)
    wanted = arguments.differentiable() if chosen is None else chosen

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        leaves = arguments.leaves_of(args)

        def of_wanted(chosen: Leaves) -> Any:
            return f(*arguments.rebuild(put(leaves, wanted, chosen)), **keywords)

        Y, pull = jax.vjp(of_wanted, [leaves[i] for i in wanted])
        if jax.tree.structure(Y) != _structure(plain, args, keywords, Y):
            raise ProblemError(
                f"{label(f, 'f')}: its forward pass must return its output's structure, got {describe(Y)}"
            )
        return Y, dict(zip(wanted, pull(dY_of(Y))[0], strict=True))

    base: Any = plain if reference is None else reference
    own = reference is None
    words = "the function that it wraps" if own else label(reference, "reference")

    def call(given: list[str]) -> tuple[str, list[str]]:
        beside = [f"keywords={keywords!r}"] if keywords else []
        return "check_custom_vjp", [label(f, "f"), "None" if own else words, *given, *beside]

    return assemble(
        Form(
            name=name or label(f, "f"),
            arguments=arguments,
            forward=lambda *args: f(*args, **keywords),
            by_hand=by_hand,
            reference=lambda *args: base(*args, **keywords),
            words=words,
            own_reference=own,
            call=call,
            wanted=wanted,
            carries_its_gradient=True,
        )
    )


def from_function(
    name: str | None,
    f: Function,
    grad_f: Function,
    args: Sequence[Any],
    argnums: int | Sequence[int],
    reference: Function | None = None,
    dtype: Any = None,
) -> Problem:
    """The problem of a gradient of a scalar function, as jax.grad would give it; without a reference, f is it."""
    where = label(grad_f, "grad_f")
    arguments = Arguments(parameter_names(f, len(args)), args, dtype=dtype)
    single = not isinstance(argnums, Sequence)
    chosen = _positions(argnums, len(args))
    wanted = [i for i in arguments.differentiable() if arguments.owner[i] in chosen]

    def gradients(args: list[Any]) -> list[Any]:
        returned = grad_f(*args)
        if single:
            if isinstance(returned, tuple | list) and not isinstance(args[chosen[0]], tuple | list):
                raise ProblemError(
                    f"{where} must return the gradient of argument {chosen[0]} alone, for argnums={argnums}, got "
                    f"{describe(returned)}"
                )
            returned = (returned,)
        if not isinstance(returned, tuple | list) or len(returned) != len(chosen):
            raise ProblemError(f"{where} must return {counted(len(chosen), 'gradient')}, got {describe(returned)}")
        return put([None] * len(args), chosen, list(returned))

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        Y = f(*args)
        if jnp.shape(Y) != () or not jnp.issubdtype(jnp.result_type(Y), jnp.floating):
            raise ProblemError(f"{label(f, 'f')} must return a real scalar, got {describe(Y)}")
        found = arguments.cotangents(where, args, gradients(args), zeros)
        return Y, {i: (dY_of(Y) * found[i]).astype(found[i].dtype) for i in wanted}

    def call(given: list[str]) -> tuple[str, list[str]]:
        beside = [] if reference is None else [f"reference={label(reference, 'reference')}"]
        return "check_function", [label(f, "f"), where, *given, f"argnums={argnums!r}", *beside]

    base = f if reference is None else reference
    words = f"jax.grad of {label(base, 'f' if reference is None else 'reference')}"
    return assemble(Form(name or where, arguments, f, by_hand, base, words, reference is None, call, wanted))


def _structure(plain: Function | None, args: list[Any], keywords: dict[str, Any], Y: Any) -> Any:
    """The structure of a function's output; Y's where it isn't known without its numbers."""
    try:
        return jax.tree.structure(Y if plain is None else jax.eval_shape(lambda: plain(*args, **keywords)))
    except Exception:  # whatever it raises without them, it raises elsewhere too
        return jax.tree.structure(Y)


def _positions(argnums: int | Sequence[int], count: int) -> tuple[int, ...]:
    chosen = tuple(operator.index(i) for i in ((argnums,) if not isinstance(argnums, Sequence) else argnums))
    if not chosen or not all(-count <= i < count for i in chosen):
        raise ProblemError(f"argnums must be among the {counted(count, 'argument')}, got {argnums!r}")
    return tuple(i % count for i in chosen)


def _wanted(arguments: Arguments, argnums: Argnums) -> list[int] | None:
    """The leaves of these arguments that have a gradient; None: all that have one."""
    if argnums is None:
        return None
    chosen = _positions(argnums, arguments.count)
    return [i for i in arguments.differentiable() if arguments.owner[i] in chosen]
