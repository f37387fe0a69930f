"""What to pull back in place of the loss's cotangent: columns of a root of its Hessian, or random draws."""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.backprop import Key, check_batches, factors_of
from handgrad.checks import InputError, check_count, describe, is_array
from handgrad.factors import Factor
from handgrad.layers import Layer, Loss, Projection
from handgrad.layers.layer import check_layer, check_loss

T = TypeVar("T")


class Sampled(Protocol):
    """Factors at drawn targets."""

    def __call__(
        self, params: PyTree, x: PyTree, target: PyTree, draw_key: PRNGKeyArray, key: Key = None
    ) -> PyTree[Factor]: ...


def sampled_factors(model: Layer, loss: Loss) -> Sampled:
    """Factors whose gradients are those of targets drawn from the model's own distribution: E g_b g_bᵀ is the Fisher.

    The loss of example b is −log p(target | prediction) up to a term that doesn't depend on the prediction: a
    categorical distribution for `softmax_cross_entropy`, a normal one for `squared_error` (variance ½) and `l2_loss`
    (variance 1), Bernoulli's for `sigmoid_cross_entropy`. Any fold takes these factors: `kfac_factors`,
    `empirical_fisher_diagonal`.

    Returns:
      (params, x, target, draw_key, key=None) -> factors. The target only says which tokens count. draw_key is for the
      draw; key is the model's, for layers that draw noise, as in `value_and_factors`.
    Raises:
      InputError: a loss without a `draw`; as `objective`.
    Derivation: docs/curvature.md (Martens & Grosse 2015, section 5; Kunstner, Balles & Hennig 2019)
    """
    check_layer("sampled_factors", model)
    check_loss("sampled_factors", loss)
    model, loss = through_logits(model, loss)
    draw = draw_of("sampled_factors", loss)

    def factors(params: PyTree, x: PyTree, target: PyTree, draw_key: PRNGKeyArray, key: Key = None) -> PyTree[Factor]:
        params, x, target, _ = check_batches("sampled_factors", params, x, target, None)
        prediction, residuals = model.forward(params, x, key)
        check_prediction("sampled_factors", prediction)
        _, of_loss = loss.forward(prediction, target)
        return factors_of(model, loss, residuals, draw(of_loss, draw_key), of_loss)

    return factors


def mean_over_the_root(
    where: str,
    model: Layer,
    loss: Loss,
    params: PyTree,
    x: PyTree,
    target: PyTree,
    draw_key: Key,
    samples: int | None,
    key: Key,
    fold: Callable[[PyTree[Factor]], T],
) -> tuple[T, int]:
    """The mean of fold(factors) over the columns of a root of the loss's Hessian, and how many columns there are.

    With samples, it is the mean over that many draws, each of which stands for all columns: the count is 1. There is
    one forward pass, so that all of them see one draw of the model's own noise.
    """
    check_layer(where, model)
    if samples is not None:
        check_count(where, "samples", samples)
    if (samples is None) != (draw_key is None):
        given = f"got draw_key {describe(draw_key)} and samples {samples!r}"
        raise InputError(f"{where}: draw_key must come with samples, {given}")
    check_loss(where, loss)
    model, loss = through_logits(model, loss)
    root_or_draw = root_of(where, loss) if samples is None else draw_of(where, loss)
    params, x, target, _ = check_batches(where, params, x, target, None)
    prediction, residuals = model.forward(params, x, key)
    check_prediction(where, prediction)
    _, of_loss = loss.forward(prediction, target)
    if samples is None or draw_key is None:
        if not is_array(prediction):
            raise InputError(f"{where}: prediction must be one array without samples, got {describe(prediction)}")
        shape, dtype = prediction.shape, prediction.dtype
        count, standing_for = math.prod(shape[1:]), math.prod(shape[1:])
        places = jnp.arange(count).reshape(1, *shape[1:])

        def pulled_back(c: Array) -> Array:
            return jnp.broadcast_to((places == c).astype(dtype), shape)

    else:
        count, standing_for = samples, 1
        keys = jax.random.split(draw_key, samples)

        def pulled_back(c: Array) -> Array:
            return keys[c]

    def of_one(c: Array) -> T:
        return fold(factors_of(model, loss, residuals, root_or_draw(of_loss, pulled_back(c)), of_loss))

    return _mean(count, of_one), standing_for


def through_logits(model: Layer, loss: Loss) -> tuple[Layer, Loss]:
    """The same objective, the loss's `through` moved to the end of the model: the prediction holds no parameters.

    Curvature is by the prediction, pulled back to the parameters. A loss like `linear_cross_entropy` multiplies by some
    of the parameters itself; its prediction is then the product, the logits.
    """
    if loss.through is None:
        return model, loss
    last, of_logits = loss.through

    def forward(params: PyTree, x: PyTree, key: Key = None) -> tuple[PyTree, PyTree]:
        y, of_model = model.forward(params, x, key)
        y, of_last = last.forward((), y)
        return y, (of_model, of_last)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, PyTree]:
        of_model, of_last = residuals
        dy, _ = last.backward(of_last, dy)
        return model.backward(of_model, dy)

    return Layer._make((model.init, forward, backward, model.couples)), of_logits


def check_prediction(where: str, prediction: PyTree) -> None:
    """`prediction` carries no parameters: a loss for a Projection needs a `through`."""

    def is_projection(node: PyTree) -> bool:
        return isinstance(node, Projection)

    if any(is_projection(node) for node in jax.tree.leaves(prediction, is_leaf=is_projection)):
        raise InputError(
            f"{where}: loss must have a `through` where the prediction is a Projection, as linear_cross_entropy has: "
            "curvature is by the logits, not by the weights that a Projection carries"
        )


def root_of(where: str, loss: Loss) -> Callable[[PyTree, Array], PyTree]:
    """The loss's `root`."""
    check_loss(where, loss)
    return _there(where, "root", loss.root)


def draw_of(where: str, loss: Loss) -> Callable[[PyTree, Array], PyTree]:
    """The loss's `draw`."""
    check_loss(where, loss)
    return _there(where, "draw", loss.draw)


def _there(
    where: str, name: str, function: Callable[[PyTree, Array], PyTree] | None
) -> Callable[[PyTree, Array], PyTree]:
    if function is None:
        raise InputError(f"{where}: loss must have a {name}, as softmax_cross_entropy and squared_error do, got none")
    return function


def _mean(count: int, of_one: Callable[[Array], T]) -> T:
    """1/count Σ_c of_one(c), sequentially."""
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_one, 0))
    total = jax.lax.fori_loop(0, count, lambda c, total: jax.tree.map(jnp.add, total, of_one(c)), zeros)
    return jax.tree.map(lambda leaf: leaf / count, total)
