"""What a layer and a loss are: small tuples of pure functions."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.checks import InputError, describe, inside, quoted
from handgrad.factors.coupled import coupled, coupling_in, renamed
from handgrad.layers import observing
from handgrad.layers.observing import Part
from handgrad.layers.starting import at_once
from handgrad.rule import Rule

__all__ = ["Layer", "Loss", "from_rule", "loss_from_rule", "placed"]


class Forward(Protocol):
    """A layer's forward pass."""

    def __call__(self, params: PyTree, x: PyTree, key: PRNGKeyArray | None = None, /) -> tuple[PyTree, PyTree]:
        """(params, x, key=None) -> (y, residuals)."""
        ...


class _Functions(NamedTuple):
    init: Callable[[PRNGKeyArray, PyTree], PyTree]
    forward: Forward
    backward: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    couples: str | None = None


class Layer(_Functions):
    """Parameters around rules: three pure functions that know nothing of the layers beside them.

    Attributes:
      init: (key, x) -> params. x is an array or a ShapeDtypeStruct, batch axis included.
      forward: (params, x, key=None) -> (y, residuals). Without a key there is no noise.
      backward: (residuals, dy) -> (dx, dparams). dparams has params' structure, a factor in each leaf's place.
      couples: None where row b of y depends on row b of x alone. A layer whose examples interact says so here,
        in the words that errors have: "my_norm couples the examples of a batch". Its backward then returns Coupled
        factors, and every layer that this one is part of says the same.
    """

    def __new__(
        cls,
        init: Callable[[PRNGKeyArray, PyTree], PyTree],
        forward: Forward,
        backward: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
        couples: str | None = None,
    ) -> "Layer":
        """The tuple; its backward makes every factor Coupled where the layer, or a layer inside it, couples.

        Which factors lie behind the coupling is known to a composition alone: see `composed`.
        """

        def saying(residuals: PyTree, dy: PyTree) -> tuple[PyTree, PyTree]:
            dx, dparams = backward(residuals, dy)
            return dx, coupled(dparams, couples or coupling_in(dparams))

        return super().__new__(cls, at_once(init), forward, saying, couples)

    def parts(self, params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> list[Part]:
        """The layers that this one is made of, in forward order, each with what it is given in this forward pass.

        Only the innermost: those that aren't made of layers themselves. A layer is found where `placed` has named it;
        a layer that isn't made of others has no parts. The forward pass runs once, operation by operation, under
        jax.disable_jit, so that loops over layers are seen step by step. A layer that runs inside another
        transformation, a jax.vmap say, is seen from outside alone: what it is part of is then the innermost.
        """
        return observing.innermost(self, params, x, key)


class Loss(NamedTuple):
    """What a prediction costs, example by example; how examples are weighted is left to the cotangent.

    Attributes:
      forward: (prediction, target) -> (losses (batch,), residuals).
      backward: (residuals, dloss) -> dprediction, for any dloss (batch,).
      root: (residuals, U) -> S U, where the Hessian of each example's loss by its prediction is S Sᵀ; None where no
        root is known.
      draw: (residuals, key) -> the cotangent of the prediction at a target drawn from the distribution whose −log the
        loss is, mean 0 and variance S Sᵀ; None where there is none. Only curvature uses these two, and those that
        follow.
      through: (layer, loss), the same loss in two steps, where the prediction carries parameters: a layer without
        parameters of its own, from the prediction to logits, and a loss of these. Curvature takes the two, since the
        GGN has the Hessian of a loss by what it doesn't multiply itself. None where the prediction carries none.
      couples: None where loss b depends on row b of prediction and target alone; else as a Layer's.
      counts: residuals -> (batch, ...) booleans, which tokens of the prediction have a loss, or None where all of this
        prediction have one; None where all of any have one.
      at_once: (prediction, target, dloss) -> (losses, dprediction), where both passes in one are quicker, arrays in the
        place of factors; None where they aren't.
    """

    forward: Callable[[PyTree, PyTree], tuple[Float[Array, " batch"], PyTree]]
    backward: Callable[[PyTree, Float[Array, " batch"]], PyTree]
    root: Callable[[PyTree, PyTree], PyTree] | None = None
    draw: Callable[[PyTree, PRNGKeyArray], PyTree] | None = None
    through: "tuple[Layer, Loss] | None" = None
    couples: str | None = None
    counts: Callable[[PyTree], Array | None] | None = None
    at_once: Callable[[PyTree, PyTree, Float[Array, " batch"]], tuple[Float[Array, " batch"], PyTree]] | None = None


def composed(
    init: Callable[[PRNGKeyArray, PyTree], PyTree],
    forward: Forward,
    backward: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    couples: str | None = None,
) -> Layer:
    """A layer made of others, whose backward tells which of its factors lie behind a coupling: see `passed_back`."""
    return Layer._make((at_once(init), forward, backward, couples))


def kind(layer: Layer) -> str:
    """The name of the function that made it, "linear"; of the rule for a layer `from_rule`."""
    return getattr(layer.forward, "__qualname__", "layer").split(".")[0]


def made_by(name: str, layer: Layer) -> Layer:
    """`layer`, made in a helper function on behalf of the one that users call: see `kind`."""
    layer.forward.__qualname__ = name  # type: ignore[attr-defined]
    return layer


def check_layer(where: str, layer: object) -> None:
    """`layer` is a Layer, not the function that makes one."""
    if not isinstance(layer, Layer):
        raise InputError(f"{where}: expected a Layer, as `relu()` makes one, got {describe(layer)}")


def check_loss(where: str, loss: object) -> None:
    """`loss` is a Loss, not the function that makes one."""
    if not isinstance(loss, Loss):
        raise InputError(f"{where}: expected a Loss, as `squared_error()` makes one, got {describe(loss)}")


def passed_back(layer: Layer, dparams: PyTree, by: str | None = None) -> tuple[PyTree, str | None]:
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


def placed(name: str | None, layer: Layer) -> Layer:
    """`layer` with a name for its place in the layer that it is a part of, for those who write one.

    Errors that it raises begin with the name ("in layer encoder.0: ..."), and so does what it says of a coupling;
    `Layer.parts`, and with it `check_model`, finds the layer under this name. A place that runs several times is
    numbered, "name.0", "name.1"; None leaves the number alone, and no name in errors.

        def twice(layer):
            step = hg.layers.placed("step", layer)

            def forward(params, x, key=None):
                h, first = step.forward(params, x)
                y, second = step.forward(params, h)
                return y, (first, second)
            ...

    It costs nothing in the compiled program: what a checker asks is asked at trace time.
    """

    def forward(params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, PyTree]:
        with observing.at(name, layer, params, x, key):
            return layer.forward(params, x, key)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, PyTree]:
        dx, dparams = layer.backward(residuals, dy)
        return dx, dparams if name is None else renamed(dparams, partial(_of_place, name))

    if name is None:
        return layer._replace(forward=forward)
    couples = None if layer.couples is None else _of_place(name, layer.couples)
    named = inside(name)
    return Layer._make((named(layer.init), named(forward), named(backward), couples))


def _of_place(name: str, couples: str) -> str:
    """What a layer says of its coupling, with its place in front: "in layer encoder.0: ..."."""
    place, name = "in layer ", quoted(name)
    return f"{place}{name}.{couples[len(place) :]}" if couples.startswith(place) else f"{place}{name}: {couples}"


def from_rule(rule: Rule[..., PyTree], *, couples: str | None = None, **options: object) -> Layer:
    """The layer without parameters whose forward and backward pass are this rule's.

    Args:
      rule: of one argument, forward (X, **options) -> (Y, residuals), backward (residuals, dY, **options) -> (dX,).
      couples: as a Layer's.
      **options: the rule's.
    """
    rule = rule.with_options(**options)

    def init(key: PRNGKeyArray, x: PyTree) -> tuple[()]:
        return ()

    def forward(params: tuple[()], x: Array, key: PRNGKeyArray | None = None) -> tuple[Array, PyTree]:
        if not (isinstance(params, tuple) and len(params) == 0):
            raise InputError(f"{rule.__name__}_forward: params must be (), got {describe(params)}")
        return rule.forward(x)

    def backward(residuals: PyTree, dy: Array) -> tuple[Array, tuple[()]]:
        (dx,) = rule.backward(residuals, dy)
        return dx, ()

    return made_by(rule.__name__, Layer(init, forward, backward, couples))


def from_pair_rule(rule: Rule[..., Array], names: str) -> Layer:
    """`from_rule` for a rule of two arrays or more: x is the tuple of them, called `names` in errors, and so is dx."""
    count = names.count(",") + 1

    def forward(x: tuple[Array, ...]) -> tuple[Array, PyTree]:
        if not (isinstance(x, tuple) and len(x) == count):
            form = "pair" if count == 2 else "tuple"
            raise InputError(f"{rule.__name__}_forward: x must be a {form} {names}, got {describe(x)}")
        return rule.forward(*x)

    def backward(residuals: PyTree, dy: Array) -> tuple[tuple[Array, ...]]:
        return (rule.backward(residuals, dy),)

    forward.__name__ = f"{rule.__name__}_forward"
    return from_rule(Rule(forward, backward))


def loss_from_rule(rule: Rule[..., PyTree], *, couples: str | None = None, **options: object) -> Loss:
    """The loss whose forward and backward pass are this rule's; the target's cotangent is dropped.

    Args:
      rule: of (prediction, target), forward -> (losses (batch,), residuals), backward (residuals, dloss) ->
        (dprediction, dtarget).
      couples: as a Loss's.
      **options: the rule's.
    """
    forward, backward = rule.with_options(**options)
    return Loss(forward, lambda residuals, dloss: backward(residuals, dloss)[0], couples=couples)
