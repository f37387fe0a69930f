"""Every loss of the table of cases as a Loss: each reaches its rule, with its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import layers
from handgrad.cases.losses import CASES

RNG = np.random.default_rng(0)
# One row of each choice of options; ctc_loss and linear_cross_entropy, of other arguments, have files of their own.
KINDS = {(case.op, str(case.options), len(case.arguments())): case for case in reversed(CASES)}
OPS = sorted({op for op, *_ in KINDS} - {"ctc_loss", "linear_cross_entropy"})


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


@pytest.mark.parametrize("op", OPS)
def test_value_and_gradient(op):
    """Those of the reference for any cotangent; nothing is averaged: an example's are those that it has alone."""
    cases = [case for (of, *_), case in KINDS.items() if of == op]

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


def test_a_loss_from_a_rule():
    def quartic_forward(A, Y, *, scale):
        return scale * jnp.sum((A - Y) ** 4, axis=1), (A, Y)

    def quartic_backward(residuals, dC, *, scale):
        A, Y = residuals
        dA = 4 * scale * dC[:, None] * (A - Y) ** 3
        return dA, -dA

    loss = hg.loss_from_rule(hg.Rule(quartic_forward, quartic_backward), scale=3.0)
    x, y = RNG.standard_normal((2, 4, 3))
    value, gradient = jax.jit(lambda x: hg.value_and_grad(hg.identity(), loss, argnums=1)((), x, y))(x)
    np.testing.assert_allclose(value, 3 * ((x - y) ** 4).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(gradient, 12 * (x - y) ** 3 / 4, rtol=1e-12)


def test_keys_that_are_learned():
    """The layer gives the keys of info_nce no gradient; the rule, called, gives them theirs."""
    A, Y = RNG.standard_normal((2, 4, 5))

    def of_both(f):
        return jax.grad(lambda A, Y: jnp.sum(jnp.sin(f(A, Y)) + f(Y, A)), argnums=(0, 1))(A, Y)

    rule = hg.rules.info_nce.with_options(temperature=0.5)
    found, expected = jax.jit(lambda: [of_both(f) for f in (rule, lambda *of: rule.forward(*of)[0])])()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
