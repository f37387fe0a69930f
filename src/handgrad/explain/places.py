"""The layers of a network, one after the other: chains are taken apart, everything else is one row."""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, PyTree

from handgrad.checks import InputError, describe, is_array, quoted
from handgrad.layers import Layer, Loss
from handgrad.layers.layer import kind
from handgrad.layers.observing import direct


class Place(NamedTuple):
    """A layer of a network.

    Attributes:
      name: its place, "1" or "encoder.2": layers without a name are counted from 1, as rows and columns are.
      kind: the function that makes it, "linear".
      layer: the layer.
      path: the keys under which the network's parameters hold its own.
    """

    name: str
    kind: str
    layer: Layer
    path: tuple[str | int, ...] = ()

    def params(self, params: PyTree) -> PyTree:
        """The layer's own, of the network's."""
        for key in self.path:
            params = params[key]
        return params


def places(model: Layer, params: PyTree, x: Array) -> list[Place]:
    """The layers that run one after the other; traced, and nothing is computed.

    Raises:
      InputError: the network takes or returns anything but one array.
    """
    found: list[Place] = []

    def look(params: PyTree, x: PyTree) -> PyTree:
        found.extend(_inside(Place("", kind(model), model), params, x))
        return model.forward(params, x)[0]

    y = jax.eval_shape(look, params, x)
    if not is_array(y):
        raise InputError(f"explain: the network must return one array, got {describe(y)}")
    return [place._replace(name=place.name or place.kind) for place in found]


def _inside(place: Place, params: PyTree, x: PyTree) -> list[Place]:
    if place.kind != "chain":
        return [place]
    parts = direct(place.layer, params, x)
    if not all(is_array(part.x) for part in parts):
        return [place]  # what goes from layer to layer is more than one array
    inside = []
    for part in parts:
        key = int(part.name) if isinstance(params, tuple) else part.name
        mine = str(key + 1) if isinstance(key, int) else quoted(key)
        name = f"{place.name}.{mine}" if place.name else mine
        inside += _inside(Place(name, kind(part.layer), part.layer, (*place.path, key)), part.params, part.x)
    return inside


def replaced(params: PyTree, path: tuple[str | int, ...], mine: PyTree) -> PyTree:
    """The network's parameters with those of one layer replaced."""
    if not path:
        return mine
    key, *rest = path
    inside = replaced(params[key], tuple(rest), mine)
    if isinstance(params, dict):
        return {**params, key: inside}
    return (*params[:key], inside, *params[key + 1 :])  # type: ignore[operator]


def kind_of_loss(loss: Loss) -> str:
    """The name of the loss's rule, or of the function that made it."""
    forward: Any = loss.forward
    while hasattr(forward, "func"):
        forward = forward.func
    return getattr(forward, "__qualname__", "loss").split(".")[0].removesuffix("_forward")
