"""What to pull back in place of the loss's slope: columns of a root of its Hessian, or draws with it as variance."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from handgrad.backprop import check_batches, factors_of
from handgrad.checks import InputError, check_count, describe
from handgrad.layers import Layer, Loss, Projection
from handgrad.layers.layer import check_layer, check_loss

Array = jax.Array


def sampled_factors(model: Layer, loss: Loss) -> Callable[..., Any]:
    """Factors whose gradients are those of targets drawn from the model's own distribution: E g_b g_bᵀ is the Fisher.

    The loss of example b is −log p(target | prediction), up to what doesn't depend on the prediction: a categorical
    distribution for `softmax_cross_entropy`, a normal one for `squared_error` (variance ½) and `l2_loss` (variance 1),
    Bernoulli's for `sigmoid_cross_entropy`. Any fold over factors takes them: `kfac_factors`,
    `empirical_fisher_diagonal`.

    Returns:
      (params, x, target, draw_key, key=None) -> factors. The target says which tokens count, no more. draw_key is for
      the draw; key is the model's, for the noise of layers that draw some: the noise of `value_and_factors` with that
      key.
    Raises:
      InputError: model is not a Layer, loss not a Loss with a `draw`; at trace time, as `objective`.
    Derivation: docs/curvature.md (Martens & Grosse 2015, section 5; Kunstner, Balles & Hennig 2019)
    """
    check_layer("sampled_factors", model)
    check_loss("sampled_factors", loss)
    model, loss = through_logits(model, loss)
    draw = draw_of("sampled_factors", loss)

    def factors(params, x, target, draw_key, key=None):
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
    params: Any,
    x: Any,
    target: Any,
    draw_key: Array | None,
    samples: int | None,
    key: Array | None,
    fold: Callable[[Any], Any],
) -> tuple[Any, int]:
    """The mean of fold(factors) over the columns of a root of the loss's Hessian, and how many columns there are.

    With samples, the mean over so many draws in the place of so many columns; a draw stands for all of them: 1. There
    is one forward pass, so that all of them see one draw of the model's own noise.
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
        shape, dtype = prediction.shape, prediction.dtype
        count, standing_for = math.prod(shape[1:]), math.prod(shape[1:])
        places = jnp.arange(count).reshape(1, *shape[1:])

        def pulled_back(c):
            return jnp.broadcast_to((places == c).astype(dtype), shape)

    else:
        count, standing_for = samples, 1
        keys = jax.random.split(draw_key, samples)

        def pulled_back(c):
            return keys[c]

    def of_one(c):
        return fold(factors_of(model, loss, residuals, root_or_draw(of_loss, pulled_back(c)), of_loss))

    return _mean(count, of_one), standing_for


def through_logits(model: Layer, loss: Loss) -> tuple[Layer, Loss]:
    """The same objective, of a model whose prediction carries no parameters: the loss's first step belongs to it.

    A matrix of curvature is one by the prediction, pulled back to the parameters. Of a loss that multiplies by some of
    them itself, as `linear_cross_entropy` does, the prediction is what it multiplies to: logits.
    """
    if loss.through is None:
        return model, loss
    last, of_logits = loss.through

    def forward(params, x, key=None):
        y, of_model = model.forward(params, x, key)
        y, of_last = last.forward((), y)
        return y, (of_model, of_last)

    def backward(residuals, dy):
        of_model, of_last = residuals
        dy, _ = last.backward(of_last, dy)
        return model.backward(of_model, dy)

    return Layer._make((model.init, forward, backward, model.couples)), of_logits


def check_prediction(where: str, prediction: Any) -> None:
    """`prediction` carries no parameters: a loss that has no `through` was not made for a Projection."""

    def is_projection(node: Any) -> bool:
        return isinstance(node, Projection)

    if any(is_projection(node) for node in jax.tree.leaves(prediction, is_leaf=is_projection)):
        raise InputError(
            f"{where}: loss must have a `through` where the prediction is a Projection, as linear_cross_entropy has: "
            "curvature is by the logits, not by the weights that a Projection carries"
        )


def root_of(where: str, loss: Any) -> Callable[[Any, Any], Any]:
    """The loss's `root`."""
    check_loss(where, loss)
    return _there(where, "root", loss.root)


def draw_of(where: str, loss: Any) -> Callable[[Any, Any], Any]:
    """The loss's `draw`."""
    check_loss(where, loss)
    return _there(where, "draw", loss.draw)


def _there(where: str, name: str, function: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], Any]:
    if function is None:
        raise InputError(f"{where}: loss must have a {name}, as softmax_cross_entropy and squared_error do, got none")
    return function


def _mean(count: int, of_one: Callable[[Any], Any]) -> Any:
    """1/count Σ_c of_one(c), one after the other."""
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_one, 0))
    total = jax.lax.fori_loop(0, count, lambda c, total: jax.tree.map(jnp.add, total, of_one(c)), zeros)
    return jax.tree.map(lambda leaf: leaf / count, total)
