"""What a layer and a loss are: small tuples of pure functions."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax

from handgrad.checks import InputError, describe, inside, quoted
from handgrad.factors.coupled import coupled, coupling_in, renamed
from handgrad.rules.rule import Rule

__all__ = [
    "Layer",
    "Loss",
    "from_rule",
    "loss_from_rule",
]

Array = jax.Array


class _Functions(NamedTuple):
    init: Callable[..., Any]
    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[[Any, Any], tuple[Any, Any]]
    couples: str | None = None


class Layer(_Functions):
    """Parameters around rules: three pure functions that know nothing of the layers beside them.

    Attributes:
      init: (key, x) -> params. x is an array or a ShapeDtypeStruct, batch axis included.
      forward: (params, x, key=None) -> (y, residuals). Without a key there is no noise.
      backward: (residuals, dy) -> (dx, dparams). dparams has params' structure, a factor in each leaf's place.
      couples: None where row b of y depends on row b of x alone. A layer whose examples see one another says so here,
        in the words that errors have: "my_norm couples the examples of a batch". Its backward then returns Coupled
        factors, and every layer that this one is part of says the same.
    """

    def __new__(cls, init: Any, forward: Any, backward: Any, couples: str | None = None) -> "Layer":
        """The tuple, its backward made to say what couples."""
        return super().__new__(cls, init, forward, _saying(backward, couples), couples)


class Composed(Layer):
    """A layer made of others, whose backward tells which of its factors lie behind a coupling: see `passed_back`.

    Attributes:
      parts: (params, x, key=None) -> (name, layer, its params, its input, its key) for each layer inside, in forward
        order: what a checker needs to find the wrong one.
    """

    parts: Callable[..., Iterator[tuple[str, Layer, Any, Any, Any]]]

    def __new__(cls, init: Any, forward: Any, backward: Any, parts: Any, couples: str | None = None) -> "Composed":
        """As Layer, and the parts."""
        self = cls._make((init, forward, backward, couples))
        self.parts = parts
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What copy makes it of."""
        return self.init, self.forward, self.backward, self.parts, self.couples


class Loss(NamedTuple):
    """What a prediction costs, example by example; how examples are weighted is left to the cotangent.

    Attributes:
      forward: (prediction, target) -> (losses (batch,), residuals).
      backward: (residuals, dloss) -> dprediction, for any dloss (batch,).
      root: (residuals, U) -> S U, where the Hessian of each example's loss by its prediction is S Sᵀ; None where no
        root is known.
      draw: (residuals, key) -> the cotangent of the prediction at a target drawn from the distribution whose −log the
        loss is, mean 0 and variance S Sᵀ; None where there is none. Curvature alone asks for these two, and for those
        that follow.
      through: (layer, loss), the same loss in two steps, where the prediction carries parameters: a layer without
        parameters of its own, from the prediction to logits, and a loss of these. Curvature takes the two, since the
        GGN has the Hessian of a loss by what it doesn't multiply itself. None where the prediction carries none.
      couples: None where loss b depends on row b of prediction and target alone; else as a Layer's.
      counts: residuals -> (batch, ...) booleans, which tokens of the prediction have a loss; None where all have one.
    """

    forward: Callable[[Any, Any], tuple[Array, Any]]
    backward: Callable[[Any, Array], Any]
    root: Callable[[Any, Any], Any] | None = None
    draw: Callable[[Any, Array], Any] | None = None
    through: tuple[Layer, Any] | None = None
    couples: str | None = None
    counts: Callable[[Any], Array] | None = None


def check_layer(where: str, layer: Any) -> None:
    """`layer` is a Layer, not the function that makes one."""
    if not isinstance(layer, Layer):
        raise InputError(f"{where}: expected a Layer, as `relu()` makes one, got {describe(layer)}")


def check_loss(where: str, loss: Any) -> None:
    """`loss` is a Loss, not the function that makes one."""
    if not isinstance(loss, Loss):
        raise InputError(f"{where}: expected a Loss, as `squared_error()` makes one, got {describe(loss)}")


def passed_back(layer: Layer, dparams: Any, by: str | None = None) -> tuple[Any, str | None]:
    """What a composition makes of the dparams that `layer.backward` gave it, walking from the end.

    Behind a coupling each loss depends on one row, so that a factor there is right row by row. In it and before it
    other examples enter a row of Delta: it is a part of the sum, and no gradient of that example alone.

    Args:
      layer: the part.
      dparams: its factors, those in and before a coupling inside it Coupled already.
      by: what couples behind the layer, or None.
    Returns:
      dparams, all Coupled where something couples behind; what couples, seen from the layer before.
    """
    return coupled(dparams, by), by or layer.couples or coupling_in(dparams)


def placed(name: str, layer: Layer) -> Layer:
    """`layer`, with its name in front of what its functions raise, and of what it says of a coupling."""

    def backward(residuals, dy):
        dx, dparams = layer.backward(residuals, dy)
        return dx, renamed(dparams, partial(at, name))

    functions = (inside(name)(function) for function in (layer.init, layer.forward, backward))
    return Layer._make((*functions, at(name, layer.couples)))


def at(name: str, couples: Any) -> Any:
    """What a layer says of its coupling, if anything, with its place in front: "in layer encoder.0: ..."."""
    if couples is None:
        return None
    place, name = "in layer ", quoted(name)
    return f"{place}{name}.{couples[len(place) :]}" if couples.startswith(place) else f"{place}{name}: {couples}"


def _saying(backward: Any, couples: str | None) -> Any:
    """`backward`, with every factor Coupled where the layer couples, or a layer inside it does.

    A user's layer around others may say nothing; a Coupled factor among its own then does, and where inside it the
    coupling lies nobody knows.
    """

    def of_layer(residuals, dy):
        dx, dparams = backward(residuals, dy)
        return dx, coupled(dparams, couples or coupling_in(dparams))

    return of_layer


def from_rule(rule: Rule[..., Any], *, couples: str | None = None, **options: Any) -> Layer:
    """The layer without parameters whose forward and backward pass are this rule's.

    Args:
      rule: of one argument, forward (X, **options) -> (Y, residuals), backward (residuals, dY, **options) -> (dX,).
      couples: as a Layer's.
      **options: the rule's.
    """
    rule = rule.with_options(**options)

    def init(key: Array, x: Any) -> tuple[()]:
        return ()

    def forward(params: tuple[()], x: Array, key: Array | None = None) -> tuple[Array, Any]:
        if not (isinstance(params, tuple) and len(params) == 0):
            raise InputError(f"{rule.__name__}_forward: params must be (), got {describe(params)}")
        return rule.forward(x)

    def backward(residuals: Any, dy: Array) -> tuple[Array, tuple[()]]:
        (dx,) = rule.backward(residuals, dy)
        return dx, ()

    return Layer(init, forward, backward, couples)


def loss_from_rule(rule: Rule[..., Any], *, couples: str | None = None, **options: Any) -> Loss:
    """The loss whose forward and backward pass are this rule's; the target's cotangent is dropped.

    Args:
      rule: of (prediction, target), forward -> (losses (batch,), residuals), backward (residuals, dloss) ->
        (dprediction, dtarget).
      couples: as a Loss's.
      **options: the rule's.
    """
    forward, backward = rule.with_options(**options)
    return Loss(forward, lambda residuals, dloss: backward(residuals, dloss)[0], couples=couples)
