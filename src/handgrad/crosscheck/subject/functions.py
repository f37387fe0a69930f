"""Gradients of functions: a custom_vjp function, and a function beside the function that is its gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.crosscheck.subject.argnums import Argnums, positions, wanted_leaves
from handgrad.crosscheck.subject.arguments import Arguments, Function, Leaves, ProblemError, put
from handgrad.crosscheck.subject.problem import Form, Problem, assemble
from handgrad.crosscheck.subject.words import counted, describe, label, parameter_names


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
    chosen = wanted_leaves(arguments, argnums)
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
    chosen = positions(argnums, len(args))
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
