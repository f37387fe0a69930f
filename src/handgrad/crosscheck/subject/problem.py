"""The gradient under test, flattened: what every check works on, in whatever form it was written."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from handgrad.crosscheck.subject.arguments import (
    Arguments,
    Function,
    Leaves,
    ProblemError,
    cotangent_like,
    differentiable,
    is_inexact,
    put,
    wide,
)
from handgrad.crosscheck.subject.words import lambdas, literal

# The arguments, written out -> the check's name, and what to call it with.
Call = Callable[[list[str]], tuple[str, list[str]]]
# (arguments, output -> its cotangent, positions of leaves whose cotangent is None) -> (output, {position: cotangent})
ByHand = Callable[[list[Any], Callable[[Any], Any], set[int]], tuple[Any, dict[int, Any]]]


class Kept(NamedTuple):
    """A forward pass and what it keeps: pull(residuals, dYs) -> {position of a leaf: its cotangent}."""

    Ys: Leaves
    residuals: Any
    pull: Callable[[Any, Leaves], dict[int, Any]]


@dataclass(frozen=True)
class Problem:
    """A gradient under test as functions of flat lists of arrays.

    Attributes:
      name: what is checked.
      leaves: every array among the arguments; anything else is closed over by the functions.
      names: the leaves' paths, as "params.0.W".
      wanted: positions of the leaves that are differentiated.
      run: (leaves, dYs) -> (Ys, cotangents), by hand: Ys the output's leaves that have a gradient, one cotangent for
        each wanted leaf, in whatever shape it came.
      forward: leaves -> the output by hand, in its own structure.
      target: leaves -> the output of the reference, in its own structure.
      reference: in words, where the reference comes from.
      own_reference: whether that is the function under test itself.
      x64: whether `run` needs 64-bit types. Without them it runs as in its author's program: a `jnp.zeros(3)` in it is
        float32.
      differentiable: leaves -> Ys, whose gradient under jax.vjp is the one by hand.
      keep: leaves -> Kept, where the function under test shows its residuals; None elsewhere.
      call: (leaves, settings as Python) -> one line of Python that checks this gradient at these numbers.
      zeros: filled while `run` is traced: positions of wanted leaves whose cotangent is None, which JAX takes for 0.
      notes: filled while `run` is traced: sentences worth knowing, whatever the verdict.
    """

    name: str
    leaves: Leaves
    names: list[str]
    wanted: list[int]
    run: Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]
    forward: Callable[[Leaves], Any]
    target: Callable[[Leaves], Any]
    reference: str
    own_reference: bool
    x64: bool
    differentiable: Callable[[Leaves], Leaves]
    keep: Callable[[Leaves], Kept] | None = None
    call: Callable[[Leaves, Sequence[str]], str] = field(default=lambda leaves, settings: "", repr=False)
    zeros: set[int] = field(default_factory=set)
    notes: dict[str, None] = field(default_factory=dict)

    def primal(self, leaves: Leaves) -> Leaves:
        """The reference's output: its leaves that have a gradient."""
        return differentiable(self.target(leaves))

    @property
    def wanted_names(self) -> list[str]:
        """The names of the leaves that are differentiated."""
        return [self.names[i] for i in self.wanted]


class Form(NamedTuple):
    """What a gradient is written as, before it is flattened.

    Attributes:
      name: what is checked.
      arguments: its arguments.
      forward: (*args) -> output.
      by_hand: the gradient under test.
      reference: (*args) -> output, in plain JAX.
      words: where the reference comes from.
      own_reference: whether that is the function under test itself.
      call: how to call the check again.
      wanted: positions of the leaves that are differentiated; None: all that can be.
      keep: (args) -> Kept, or None.
      carries_its_gradient: whether `forward` has the gradient under test already, as a `custom_vjp` has.
      functions: those in `call`, by the names that they have there.
      notes: filled while `by_hand` is traced.
    """

    name: str
    arguments: Arguments
    forward: Function
    by_hand: ByHand
    reference: Function
    words: str
    own_reference: bool
    call: Call
    wanted: list[int] | None = None
    keep: Callable[[list[Any]], Kept] | None = None
    carries_its_gradient: bool = False
    functions: Mapping[str, Any] = MappingProxyType({})
    notes: dict[str, None] | None = None


def assemble(form: Form) -> Problem:
    """From functions of arguments to functions of flat lists of arrays.

    Raises:
      ProblemError: there is nothing to differentiate, or an input is NaN.
    """
    name, arguments, forward = form.name, form.arguments, form.forward
    wanted = arguments.differentiable() if form.wanted is None else form.wanted
    if not wanted:
        raise ProblemError(f"{name}: there must be a floating-point argument to differentiate, got none")
    for leaf, called in zip(arguments.leaves, arguments.names, strict=True):
        if is_inexact(leaf) and np.isnan(np.asarray(leaf, wide(leaf.dtype))).any():
            raise ProblemError(f"{name}: {called} must hold numbers, got NaN in the input")
    zeros: set[int] = set()
    x64 = bool(jax.config.jax_enable_x64) or any(  # pyright: ignore[reportAttributeAccessIssue]
        leaf.dtype in (np.float64, np.complex128) for leaf in arguments.leaves
    )

    def run(leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        Y, found = form.by_hand(arguments.rebuild(leaves), lambda Y: cotangent_like(name, Y, dYs), zeros)
        return differentiable(Y), [found[i] for i in wanted]

    def plain(leaves: Leaves) -> Leaves:
        return differentiable(forward(*arguments.rebuild(leaves)))

    keep = form.keep
    kept = None if keep is None else lambda leaves: keep(arguments.rebuild(leaves))

    def written_out(leaves: Leaves, settings: Sequence[str]) -> str:
        function, given = form.call([literal(arg) for arg in arguments.rebuild(leaves)])
        return f"{function}({', '.join([*given, *settings])}){lambdas(form.functions)}"

    return Problem(
        name=name,
        leaves=arguments.leaves,
        names=arguments.names,
        wanted=wanted,
        run=run,
        forward=lambda leaves: forward(*arguments.rebuild(leaves)),
        target=lambda leaves: form.reference(*arguments.rebuild(leaves)),
        reference=form.words,
        own_reference=form.own_reference,
        x64=x64,
        differentiable=plain if form.carries_its_gradient else _with_gradient(plain, run, wanted, kept),
        keep=kept,
        call=written_out,
        zeros=zeros,
        notes={} if form.notes is None else form.notes,
    )


def pullback(
    primal: Callable[[Leaves], Leaves], wanted: Sequence[int]
) -> Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]:
    """(leaves, dYs) -> (Ys, cotangents of the wanted leaves), by jax.vjp of `primal`."""

    def pulled(leaves: Leaves, dYs: Leaves) -> tuple[Leaves, Leaves]:
        Ys, pull = jax.vjp(
            lambda chosen: primal(put(leaves, wanted, chosen)), [jax.numpy.asarray(leaves[i]) for i in wanted]
        )
        return Ys, pull([dY.astype(Y.dtype) for dY, Y in zip(dYs, Ys, strict=True)])[0]

    return pulled


def pushforward(
    primal: Callable[[Leaves], Leaves], wanted: Sequence[int]
) -> Callable[[Leaves, Leaves], tuple[Leaves, Leaves]]:
    """(leaves, directions of the wanted leaves) -> (Ys, their tangents), by jax.jvp of `primal`."""

    def pushed(leaves: Leaves, directions: Leaves) -> tuple[Leaves, Leaves]:
        chosen = [jax.numpy.asarray(leaves[i]) for i in wanted]
        return jax.jvp(lambda chosen: primal(put(leaves, wanted, chosen)), (chosen,), (directions,))

    return pushed


def _with_gradient(
    plain: Callable[[Leaves], Leaves],
    run: Callable[[Leaves, Leaves], tuple[Leaves, Leaves]],
    wanted: list[int],
    kept: Callable[[Leaves], Kept] | None,
) -> Callable[[Leaves], Leaves]:
    """`plain` with the gradient by hand as its own: from what the forward pass keeps, where it shows that."""
    pulls = []  # how to pull back is no array: it bypasses JAX, from the forward pass traced last to its backward pass

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
