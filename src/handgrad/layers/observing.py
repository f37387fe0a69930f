"""Looking into a layer that is made of others: what each layer inside is given in one forward pass.

`layer.placed` reports to the observer of the forward pass that is running, if there is one. That happens at trace time
alone: no program contains anything of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from handgrad.checks import quoted

__all__ = ["Part"]

if TYPE_CHECKING:
    from handgrad.layers.layer import Layer


class Part(NamedTuple):
    """A layer inside another one, and what it is given there.

    Attributes:
      name: its place, "blocks.2.inside.0".
      layer: the layer.
      params, x, key: the arguments of its forward pass.
    """

    name: str
    layer: Layer
    params: PyTree
    x: PyTree
    key: PRNGKeyArray | None


Turns = tuple[int, ...]


@dataclass
class _Place:
    """A layer that runs while an observer looks, and the places inside it; none where they cannot be observed."""

    part: Part
    numbered: bool = False
    inside: list[_Place] | None = field(default_factory=list)

    def innermost(self, path: tuple[str, ...] = (), turns: Turns = ()) -> Iterator[tuple[Part, Turns]]:
        if not self.inside:
            yield self.part._replace(name=".".join(path)), turns
            return
        times, seen = Counter(place.part.name for place in self.inside), Counter[str]()
        for place in self.inside:
            name = place.part.name
            number = [str(seen[name])] if place.numbered or times[name] > 1 else []
            seen[name] += 1
            own = (*path, *([quoted(name)] if name or not place.numbered else []))
            yield from place.innermost((*own, *number), (*turns, len(own)) if number else turns)


_OBSERVED: ContextVar[_Place | None] = ContextVar("observed", default=None)


def innermost(layer: Layer, params: PyTree, x: PyTree, key: PRNGKeyArray | None) -> list[Part]:
    """The innermost of the layers that `layer` is made of; see `Layer.parts`."""
    return [part for part, _ in innermost_with_turns(layer, params, x, key)]


def innermost_with_turns(layer: Layer, params: PyTree, x: PyTree, key: PRNGKeyArray | None) -> list[tuple[Part, Turns]]:
    """The same, each with the places in its name that count how often a layer has run, and name no parameters."""
    whole = _Place(Part("", layer, params, x, key))
    with _observing(whole), jax.disable_jit():
        layer.forward(params, x, key)
    return list(whole.innermost()) if whole.inside else []


def direct(layer: Layer, params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> list[Part]:
    """The layers that `layer` itself is made of, whether or not they are made of others; as `innermost`."""
    whole = _Place(Part("", layer, params, x, key))
    with _observing(whole), jax.disable_jit():
        layer.forward(params, x, key)
    return [place.part for place in whole.inside or ()]


@contextmanager
def at(name: str | None, layer: Layer, params: PyTree, x: PyTree, key: PRNGKeyArray | None) -> Iterator[None]:
    """The body is the forward pass of `layer` at the place `name`; tell the observer, if there is one."""
    around = _OBSERVED.get()
    if around is None or around.inside is None:
        yield
        return
    place = _Place(Part(name or "", layer, params, x, key), numbered=name is None)
    if _traced(place.part) and not _traced(around.part):
        around.inside = None  # under a transformation: there are no values here
        yield
        return
    around.inside.append(place)
    with _observing(place):
        yield


def over_copies(function: Callable[..., PyTree], n: int) -> Callable[..., PyTree]:
    """jax.vmap(function) for arguments that have an axis of n in front; while someone observes, a loop over it."""

    def loop(*args: PyTree) -> PyTree:
        copies = [function(*jax.tree.map(lambda a, i=i: a[i], args)) for i in range(n)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)

    def mapped(*args: PyTree) -> PyTree:
        return jax.vmap(function, axis_size=n)(*args) if _OBSERVED.get() is None else loop(*args)

    return mapped


@contextmanager
def _observing(place: _Place) -> Iterator[None]:
    token = _OBSERVED.set(place)
    try:
        yield
    finally:
        _OBSERVED.reset(token)


def _traced(part: Part) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((part.params, part.x, part.key)))
