"""A loss that arises inside the model: layers that carry it past others, and the loss that adds it.

A layer with an auxiliary loss (mixture_of_experts with `balance`) returns (y, c), c of (batch,). Between it
and the model's end every layer takes and returns such a pair:

    model = chain(linear(8), begin_auxiliary(), carry_auxiliary(moe, skip=True), carry_auxiliary(linear(3)))
    loss = add_auxiliary(softmax_cross_entropy(), 0.01)

objective(model, loss) then holds the whole loss, and its gradient is the hand-written one.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import PyTree

from handgrad.checks import InputError, check_residuals, describe
from handgrad.layers.layer import Layer, Loss, check_layer, check_loss, composed, placed
from handgrad.layers.structure.residual import check_like

__all__ = ["add_auxiliary", "begin_auxiliary", "carry_auxiliary"]


class CarryAuxiliaryResiduals(NamedTuple):
    """kept: the layer's own residuals. The layer returned an array: c passed by it."""

    kept: PyTree


class AddedAuxiliaryResiduals(NamedTuple):
    """kept: the layer's own residuals. The layer returned a pair: its own c was added."""

    kept: PyTree


def begin_auxiliary() -> Layer:
    """x as (x, 0): no auxiliary loss yet.

    Derivation: docs/derivations/structure/mixture_of_experts.md
    """

    def forward(params, x, key=None):
        return (x, jnp.zeros(x.shape[:1], x.dtype)), ()

    def backward(residuals, dy):
        dx, _ = check_pair("begin_auxiliary", "dy", dy)
        return dx, ()

    return Layer(lambda key, x: (), forward, backward)


def carry_auxiliary(layer: Layer, *, skip: bool = False) -> Layer:
    """(x, c) as (layer(x), c); or, where the layer returns (y, its own c), as (y, the sum of both).

    Args:
      layer: any layer on arrays.
      skip: True adds a skip connection, x + layer(x).
    Raises:
      InputError: at trace time, an input that is no pair.
    Derivation: docs/derivations/structure/mixture_of_experts.md
    """
    check_layer("carry_auxiliary", layer)
    layer = placed("inside", layer)

    def init(key, x):
        return layer.init(key, check_pair("carry_auxiliary", "x", x)[0])

    def forward(params, x, key=None):
        x, c = check_pair("carry_auxiliary", "x", x)
        y, kept = layer.forward(params, x, key)
        added = type(y) is tuple  # a NamedTuple, such as Projection, is one prediction
        y, c = (y[0], c + y[1]) if added else (y, c)
        if skip:
            check_like("carry_auxiliary", x, y)
            y = x + y
        return (y, c), (AddedAuxiliaryResiduals if added else CarryAuxiliaryResiduals)(kept)

    def backward(residuals, dy):
        dy, dc = check_pair("carry_auxiliary", "dy", dy)
        if isinstance(residuals, AddedAuxiliaryResiduals):
            dx, dparams = layer.backward(residuals.kept, (dy, dc))
        else:
            (kept,) = check_residuals("carry_auxiliary", residuals, CarryAuxiliaryResiduals)
            dx, dparams = layer.backward(kept, dy)
        return (dy + dx if skip else dx, dc), dparams

    return composed(init, forward, backward, layer.couples)


def add_auxiliary(loss: Loss, coefficient: float) -> Loss:
    """C_b = loss of y, plus coefficient × c_b, for predictions (y, c).

    Args:
      loss: a loss of y.
      coefficient: how much c counts; the Switch Transformer takes 0.01.
    Raises:
      InputError: at trace time, a prediction that is no pair.
    Derivation: docs/derivations/structure/mixture_of_experts.md
    """
    check_loss("add_auxiliary", loss)

    def forward(prediction, target):
        y, c = check_pair("add_auxiliary", "prediction", prediction)
        losses, residuals = loss.forward(y, target)
        return losses + coefficient * c, residuals

    def backward(residuals, dloss):
        return loss.backward(residuals, dloss), coefficient * dloss

    through = None
    if loss.through is not None:
        layer, of_logits = loss.through
        through = carry_auxiliary(layer), add_auxiliary(of_logits, coefficient)
    return Loss(forward, backward, through=through, couples=loss.couples, counts=loss.counts)


def check_pair(where: str, name: str, value: PyTree) -> tuple[PyTree, PyTree]:
    """`value` is an array with an auxiliary loss beside it."""
    if not (isinstance(value, tuple) and len(value) == 2):
        raise InputError(f"{where}: {name} must be a pair, (array, auxiliary loss), got {describe(value)}")
    return value
