"""Gradients of functions: a custom_vjp function, and a function beside the function that is its gradient."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.crosscheck.subject.argnums import Argnums, positions, wanted_leaves
from handgrad.crosscheck.subject.arguments import Arguments, Function, Leaves, ProblemError, check_callable, put
from handgrad.crosscheck.subject.problem import Form, Problem, assemble
from handgrad.crosscheck.subject.words import counted, describe, label, parameter_names

JIT = type(jax.jit(lambda x: x))
# What JAX says of a cotangent of another shape.
MISFIT = re.compile(
    r"at output((?:\[[^\]]+\])+).* of type (\S+) corresponding to an input of type (\w+\[[^\]]*\])", re.DOTALL
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
    where = label(f, "f")
    plain, fixed = _with_reference(where, f, reference)
    arguments = Arguments(parameter_names(plain or f, len(args)), args, fixed, dtype)
    if not arguments.differentiable():
        _check_bound(where, plain, args, fixed)
    chosen = wanted_leaves(arguments, argnums)
    wanted = arguments.differentiable() if chosen is None else chosen
    named = [name for i, name in enumerate(parameter_names(plain or f, len(args))) if i not in fixed]
    said: dict[str, None] = {}

    def by_hand(args: list[Any], dY_of: Callable[[Any], Any], zeros: set[int]) -> tuple[Any, dict[int, Any]]:
        leaves = arguments.leaves_of(args)

        def of_wanted(chosen: Leaves) -> Any:
            return f(*arguments.rebuild(put(leaves, wanted, chosen)), **keywords)

        Y, pull = jax.vjp(of_wanted, [leaves[i] for i in wanted])
        said.update(_other_containers(where, Y, _output(plain, args, keywords, Y)))
        dY = dY_of(Y)
        try:
            return Y, dict(zip(wanted, pull(dY)[0], strict=True))
        except ValueError as error:
            words = _misfit(str(error), named) if plain else ""
            if not words:
                raise
            raise ProblemError(f"{where}: {words}") from None

    base: Any = plain if reference is None else reference
    own = reference is None
    words = "the function that it wraps" if own else label(reference, "reference")

    def call(given: list[str]) -> tuple[str, list[str]]:
        beside = [f"keywords={keywords!r}"] if keywords else []
        beside += [] if argnums is None else [f"argnums={argnums!r}"]
        return "check_custom_vjp", [where, "None" if own else words, *given, *beside]

    return assemble(
        Form(
            name=name or where,
            arguments=arguments,
            forward=lambda *args: f(*args, **keywords),
            by_hand=by_hand,
            reference=lambda *args: base(*args, **keywords),
            words=words,
            own_reference=own,
            call=call,
            wanted=wanted,
            carries_its_gradient=True,
            functions={where: plain or f} | ({} if reference is None else {words: reference}),
            notes=said,
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
    check_callable("f", f)
    check_callable("grad_f", grad_f)
    check_callable("reference", reference, or_none=True)
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
    called = {label(f, "f"): f, where: grad_f}
    called |= {} if reference is None else {label(reference, "reference"): reference}
    own = reference is None
    return assemble(Form(name or where, arguments, f, by_hand, base, words, own, call, wanted, functions=called))


def wrapped(f: Function) -> tuple[Function | None, tuple[int, ...]]:
    """(the function that a custom_vjp wraps, itself or under jit, its nondiff_argnums); (None, ()) of any other: a
    decorator such as vmap makes another function of it."""
    if inspect.ismethod(f):
        plain, fixed = wrapped(f.__func__)
        bound = None if plain is None else functools.partial(plain, f.__self__)
        return bound, tuple(i - 1 for i in fixed if i > 0)
    if isinstance(f, JIT):
        return wrapped(getattr(f, "__wrapped__"))  # noqa: B009 (a type checker doesn't know it)
    plain = getattr(f, "fun", None)
    # What functools.wraps decorates has a copy of the attributes, and wraps what they belong to.
    own = plain is not None and getattr(f, "__wrapped__", plain) is plain
    return (plain, tuple(getattr(f, "nondiff_argnums", ()))) if own else (None, ())


def _with_reference(where: str, f: Function, reference: Function | None) -> tuple[Function | None, tuple[int, ...]]:
    """`wrapped(f)`.

    Raises:
      ProblemError: there is nothing to compare with, or what should be a function is none.
    """
    check_callable("f", f)
    check_callable("reference", reference, or_none=True)
    plain, fixed = wrapped(f)
    if reference is None and plain is None:
        needed = "a jax.custom_vjp function, itself or under jax.jit, or come with a reference"
        raise ProblemError(f"{where} must be {needed}")
    return plain, fixed


def _check_bound(where: str, plain: Function | None, args: Sequence[Any], fixed: Sequence[int]) -> None:
    """An array in self's place: JAX doesn't bind a custom_vjp function to its object."""
    if (
        plain is not None
        and 0 in fixed
        and args
        and hasattr(args[0], "dtype")
        and parameter_names(plain, 1) == ["self"]
    ):
        raise ProblemError(
            f"{where} is a method, which jax.custom_vjp doesn't bind: pass the object as its first argument, got "
            f"{describe(args[0])}"
        )


def _output(plain: Function | None, args: list[Any], keywords: dict[str, Any], Y: Any) -> Any:
    """A function's output, as shapes; Y where it isn't known without its numbers."""
    try:
        return Y if plain is None else jax.eval_shape(lambda: plain(*args, **keywords))
    except Exception:  # whatever it raises without them, it raises elsewhere too
        return Y


def _other_containers(where: str, Y: Any, output: Any) -> dict[str, None]:
    """A note on a forward pass that returns a list for a tuple, which jax.grad accepts.

    Raises:
      ProblemError: it returns another structure: what takes the function's output would fail under jax.grad.
    """
    if jax.tree.structure(Y) == jax.tree.structure(output):
        return {}
    if jax.tree.structure(_with_tuples(Y)) != jax.tree.structure(_with_tuples(output)):
        raise ProblemError(
            f"{where}: its forward pass must return its output's structure, {describe(output)}, got {describe(Y)}"
        )
    words = f"its forward pass returns {describe(Y)}, the function itself {describe(output)}"
    return {f"{words}: jax.grad of the function takes that, jax.grad of jax.jit of it doesn't": None}


def _with_tuples(tree: Any) -> Any:
    """The tree with tuples in the place of its lists."""

    def as_tuple(node: Any) -> Any:
        return tuple(map(_with_tuples, node)) if isinstance(node, list) else node

    return jax.tree.map(as_tuple, tree, is_leaf=lambda node: isinstance(node, list))


def _misfit(message: str, names: list[str]) -> str:
    """JAX's words for a cotangent of another shape, with the argument's name; "" for any other message."""
    found = MISFIT.search(message)
    if found is None:
        return ""
    first, *path = re.findall(r"\['?([^\]']+)'?\]", found[1])
    if not first.isdigit() or int(first) >= len(names):
        return ""
    return f"the cotangent of {'.'.join([names[int(first)], *path])} must be {found[3]}, got {found[2]}"
