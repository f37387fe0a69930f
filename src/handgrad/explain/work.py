"""A network worked through: its forward pass, its backward pass and its update, every matrix kept.

All of it is computed by the library's own layers in float64, and compared with jax.grad and a difference quotient.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from handgrad.backprop import losses_and_cotangent, objective, same_batch, weighted_sum
from handgrad.checks import InputError, check_count, check_positive, describe, is_array, path_name
from handgrad.explain import equations
from handgrad.explain.compared import checks
from handgrad.explain.places import Place, kind_of_loss, places, replaced
from handgrad.explain.worked import Checked, Form, Gradient, LayerStep, LossForm, Run, Step, Worked
from handgrad.factors import Outer, Total, is_factor, materialize
from handgrad.factors.base import as_rows
from handgrad.layers import Layer, Loss
from handgrad.layers.layer import check_layer, check_loss

LARGEST = 1_000_000  # numbers in one step: parameters, inputs and outputs
MOST = 40_000_000  # numbers in all steps, beyond which memory runs out
MOST_STEPS = 1000


def work(
    model: Layer,
    loss: Loss,
    params: PyTree,
    x: Array,
    target: Array,
    *,
    learning_rate: float,
    steps: int,
    rates: Sequence[float] = (),
    title: str = "A network, worked through",
    intro: str = "",
) -> Worked:
    """Train a network for some steps of gradient descent on the mean loss, and keep every matrix.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> W = hg.LinearParams(jnp.array([[-23.1]]))
    >>> given = W, jnp.array([[5.7]]), jnp.array([[50.1]])
    >>> worked = work(hg.linear(1, bias=False), hg.squared_error(), *given, learning_rate=0.007, steps=20)
    >>> print(f"{worked.run.steps[-1].layers[0].updated['W'].item():.5g}")
    8.7893

    Args:
      model: any layer; a chain is taken apart into the layers that it is made of.
      loss: its loss.
      params: the model's parameters.
      x, target: a batch, one array each.
      learning_rate: what a gradient is multiplied with before it is subtracted.
      steps: how many steps, at most 1,000.
      rates: learning rates to do the same with; learning_rate is added where it isn't among them.
      title, intro: what the network is, in words.
    Raises:
      InputError: something that isn't a network of one array, a network too large to show, a learning rate or a
        number of steps that isn't positive.
    """
    check_layer("explain", model)
    check_loss("explain", loss)
    check_positive("explain", "learning_rate", learning_rate)
    check_count("explain", "steps", steps)
    if steps > MOST_STEPS:
        raise InputError(f"explain: steps must be at most {MOST_STEPS:,}, got {steps:,}")
    for rate in rates:
        check_positive("explain", "a rate", rate)
    all_rates = sorted({float(learning_rate), *map(float, rates)})
    with jax.enable_x64(True):
        params, x, target = _in_float64(params), _in_float64(x), _in_float64(target)
        _check_arrays(x, target)
        batch = same_batch("explain", x, target)
        with _in_our_words():
            found = places(model, params, x)
            one_step = _one_step(found, loss)
            shapes = jax.eval_shape(one_step, params, x, target, 0.0)
        _check_size(shapes, steps * len(all_rates))
        forms = tuple(_form(place, params, of_layer) for place, of_layer in zip(found, shapes[1], strict=True))
        checked = checks(objective(model, loss), params, x, target, found)
        chosen, program = all_rates.index(float(learning_rate)), jax.jit(one_step)
        runs = tuple(
            _run(program, params, x, target, rate, steps, checked if i == chosen else None)
            for i, rate in enumerate(all_rates)
        )
    plain = _is_plain(runs[0].steps[0], batch)
    if not plain:
        runs = tuple(replace(run, steps=tuple(replace(step, parts={}) for step in run.steps)) for run in runs)
    of_loss = LossForm(kind_of_loss(loss), *equations.of_loss(kind_of_loss(loss), batch, plain))
    return Worked(title, intro, chosen, batch, forms, of_loss, runs)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """An error of the loss's rule names prediction and target without the letters that they have there, since here Y is
    every layer's output and Y* the target; and layers are counted from 1."""
    try:
        yield
    except InputError as error:
        sentence = re.sub(r"\b(target|prediction|logits) [AYZ]\b", r"\1", error.sentence)
        path = tuple(str(int(key) + 1) if key.isdecimal() else key for key in error.path)
        raise InputError(sentence, path) from None


def _one_step(found: Sequence[Place], loss: Loss) -> Callable[..., PyTree]:
    """(params, x, target, rate) -> the new parameters; everything that happens in the step."""

    def one_step(params: PyTree, x: Array, target: Array, rate: Array) -> PyTree:
        inputs, outputs, residuals = [], [], []
        for place in found:
            inputs.append(x)
            x, kept = place.layer.forward(place.params(params), x)
            outputs.append(x)
            residuals.append(kept)
        losses, dprediction = losses_and_cotangent(loss, x, target, None)
        dx, layers = dprediction, []
        for place, X, Y, kept in reversed(list(zip(found, inputs, outputs, residuals, strict=True))):
            dy = dx
            dx, factors = place.layer.backward(kept, dy)
            mine, grads = place.params(params), materialize(factors)
            updated = jax.tree.map(lambda p, g: p - rate * g, mine, grads)
            layers.insert(0, {"X": X, "Y": Y, "dY": dy, "dX": dx, "params": _named(mine)})
            layers[0] |= {"grads": _named(grads), "sides": _sides(factors), "updated": _named(updated)}
            params = replaced(params, place.path, updated)
        of_loss = {"losses": losses, "target": target, "dprediction": dprediction, "parts": _parts(loss, x, target)}
        return params, layers, {"loss": weighted_sum(losses, None), **of_loss}

    return one_step


def _parts(loss: Loss, prediction: Array, target: Array) -> dict[str, Array]:
    """What the equations of the loss name: the probabilities P, and a target of labels as rows Q."""
    if kind_of_loss(loss) != "softmax_cross_entropy":
        return {}
    P = jax.nn.softmax(prediction)
    return {"P": P} | ({"Q": jax.nn.one_hot(target, P.shape[-1])} if target.ndim < P.ndim else {})


def _is_plain(step: Step, batch: int) -> bool:
    """Whether dY = (P − Q) / N: not with smoothed labels, class weights and other options."""
    if not step.parts:
        return True
    off = step.dprediction - (step.parts["P"] - step.parts.get("Q", step.target)) / batch
    return bool(np.all(np.abs(off) <= 1e-9))


def _named(params: PyTree) -> dict[str, Array]:
    """The leaves by their names, "W" or "inside.W"."""
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(params)}


def _sides(factors: PyTree) -> dict[str, dict[str, Array]]:
    """The two sides of each gradient AᵀΔ, and the one of Δᵀ1, a row for each example and token."""
    sides = {}
    for path, factor in jax.tree.leaves_with_path(factors, is_leaf=is_factor):
        if isinstance(factor, Outer):
            sides[path_name(path)] = {"A": as_rows(factor.A), "Delta": as_rows(factor.Delta)}
        elif isinstance(factor, Total) and len(factor.shape) == 1:
            sides[path_name(path)] = {"Delta": factor.Delta.reshape(-1, *factor.shape)}
    return sides


def _form(place: Place, params: PyTree, shapes: dict[str, PyTree]) -> Form:
    names, sides = tuple(_named(place.params(params))), shapes["sides"]
    outer = tuple(name for name in names if "A" in sides.get(name, ()))
    forward, backward = equations.of_layer(place.kind, names, outer, integers=shapes["dX"] is None)
    return Form(place.name, place.kind, forward, tuple(backward), names, outer)


def _run(
    program: Callable[..., PyTree],
    params: PyTree,
    x: Array,
    target: Array,
    rate: float,
    steps: int,
    checked: Sequence[dict[str, Checked]] | None,
) -> Run:
    """Some steps at one learning rate; the first of them with what it was checked against."""
    done = []
    for i in range(steps):
        params, layers, rest = program(params, x, target, rate)
        layers, rest = jax.tree.map(np.asarray, (layers, rest))
        known = checked if i == 0 and checked is not None else [{} for _ in layers]
        done.append(
            Step(
                float(rest["loss"]),
                rest["losses"],
                rest["target"],
                rest["dprediction"],
                tuple(_layer_step(layer, of_layer) for layer, of_layer in zip(layers, known, strict=True)),
                rest["parts"],
            )
        )
    last, updated = done[-1].loss, [a for layer in done[-1].layers for a in layer.updated.values()]
    finite = math.isfinite(last) and all(np.isfinite(a).all() for a in updated)
    return Run(rate, not finite or last > done[0].loss, tuple(done))


def _layer_step(layer: dict[str, PyTree], checked: dict[str, Checked]) -> LayerStep:
    grads = {
        name: Gradient(value, **layer["sides"].get(name, {}), checked=checked.get(name))
        for name, value in layer["grads"].items()
    }
    of_pass = {name: layer[name] for name in ("X", "Y", "dY", "dX", "params", "updated")}
    return LayerStep(**of_pass, grads=grads)


def _in_float64(tree: PyTree) -> PyTree:
    """Floating-point leaves in float64, others as they are."""

    def converted(leaf: PyTree) -> Array:
        array = jnp.asarray(leaf)
        return array.astype(jnp.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array

    return jax.tree.map(converted, tree)


def _check_arrays(x: PyTree, target: PyTree) -> None:
    """One array each."""
    for name, value in (("x", x), ("target", target)):
        if not is_array(value):
            raise InputError(f"explain: {name} must be one array, got {describe(value)}")


def _check_size(shapes: PyTree, steps: int) -> None:
    """Refuse what nobody can read, or would fill the memory."""
    _, layers, _ = shapes
    shown = jax.tree.leaves([{name: layer[name] for name in ("X", "Y", "params")} for layer in layers])
    size = sum(math.prod(a.shape) for a in shown)
    if size > LARGEST:
        raise InputError(
            f"explain: the network must have at most {LARGEST:,} numbers in a step (parameters, inputs and outputs of "
            f"its layers), got {size:,}"
        )
    if 4 * size * steps > MOST:
        most = max(1, MOST // (4 * size))
        raise InputError(
            f"explain: steps times learning rates must be at most {most:,} for a network of {size:,} numbers, "
            f"got {steps:,}"
        )
