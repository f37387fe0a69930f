"""A stem's losses as Losses: each reaches its rule, with its options."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_same

from handgrad import layers
from handgrad.cases.losses import CASES

# One row of each choice of options.
KINDS = {(case.op, str(case.options), len(case.arguments())): case for case in reversed(CASES)}


def as_loss(case, prediction, target, *class_weights):
    """Losses and the prediction's cotangent, by the layer and by autodiff of the reference; and of the last example
    alone. The first has a cotangent of 0."""
    more = {"class_weights": class_weights[0]} if class_weights else {}
    loss = getattr(layers, case.op)(**case.options, **more)
    losses, residuals = loss.forward(prediction, target)
    dloss = jnp.asarray(np.resize([0.0, 1.0, -2.0, 0.25], losses.shape))
    truth, pull = jax.vjp(lambda prediction: case.expected(prediction, target, *class_weights), prediction)
    whole = losses, loss.backward(residuals, dloss)
    if loss.couples:
        return whole, (truth, *pull(dloss)), whole
    alone, kept = loss.forward(prediction[-1:], target[-1:])
    return whole, (truth, *pull(dloss)), (alone, loss.backward(kept, dloss[-1:]))


def check_losses(stem, without=()):
    """Those of the reference for any cotangent; nothing is averaged: an example's are those that it has alone.

    `without`: losses whose prediction is several arrays.
    """
    ops = set(importlib.import_module(f"handgrad.layers.losses.{stem}").__all__) - set(without)
    cases = [case for case in KINDS.values() if case.op in ops]
    assert {case.op for case in cases} == set(ops)

    @jax.jit
    def run(given):
        return [as_loss(case, *arguments) for case, arguments in zip(cases, given, strict=True)]

    for case, outcome in zip(cases, run([case.arguments() for case in cases]), strict=True):
        whole, truth, alone = jax.tree.map(np.asarray, outcome)
        assert whole[0].shape == whole[1].shape[:1]
        assert (whole[1][0] == 0).all()
        for found, expected, one in zip(whole, truth, alone, strict=True):
            np.testing.assert_allclose(found, expected, rtol=case.rtol, atol=case.rtol * np.abs(expected).max())
            np.testing.assert_allclose(one, found[-len(one) :], rtol=1e-14)


def check_of_several(rows, x):
    """Rows of (loss, predictions of x, target, the rule's losses of x): values and dx, weighted, in one program."""

    @jax.jit
    def both(x):
        by_layer, by_rule = [], []
        for loss, predictions, target, of_rule in rows:
            losses, residuals = loss.forward(predictions(x), target)
            weights = jnp.arange(1.0, len(losses) + 1)
            _, pull = jax.vjp(predictions, x)
            by_layer.append((losses, *pull(loss.backward(residuals, weights))))
            truth, pull = jax.vjp(of_rule, x)
            by_rule.append((truth, *pull(weights)))
        return by_layer, by_rule

    assert_same(*both(x))
