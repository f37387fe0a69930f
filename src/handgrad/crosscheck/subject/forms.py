"""The forms of a gradient with a forward and a backward pass: a rule, a layer, a network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from handgrad.crosscheck.subject.argnums import Argnums, wanted_leaves
from handgrad.crosscheck.subject.arguments import (
    Arguments,
    Function,
    Leaves,
    ProblemError,
    check_callable,
    cotangent_like,
    differentiable,
)
from handgrad.crosscheck.subject.problem import Call, Form, Kept, Problem, assemble
from handgrad.crosscheck.subject.words import describe, first_line, label, literal, parameter_names

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
    for what, f in (("forward", forward), ("backward", backward)):
        check_callable(what, f)
    check_callable("reference", reference, or_none=True)
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
    beside += [] if argnums is None else [f"argnums={argnums!r}"]
    functions = {where: forward, back: backward} | ({} if reference is None else {words: reference})
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
            wanted=wanted_leaves(arguments, argnums),
            keep=keep,
            functions={} if call else functions,
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
    beside += [] if key is None else [f"key={literal(key)}"]

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
        beside = [] if key is None else [f"key={literal(key)}"]
        return "check_model", [name, "loss", *given[:3], f"weights={given[3]}", *beside]

    return assemble(
        Form(name, arguments, forward, by_hand, forward, OWN, True, call, wanted=wanted_leaves(arguments, (0, 1)))
    )
