"""ctc_loss at the end of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 6, 2))
TARGET = layers.CtcTarget(np.array([[1, 2], [3, 3], [2, 0]]), np.array([6, 5, 3]), np.array([2, 2, 1]))


def optax_loss(Z, target, blank):
    def padding(size, lengths):
        return (np.arange(size)[None] >= lengths[:, None]).astype(float)

    labels, frames, lengths = target
    return optax.losses.ctc_loss(Z, padding(6, frames), labels, padding(2, lengths), blank_id=blank)


@pytest.mark.parametrize("options", [{}, {"blank": 4, "residuals": "recompute"}], ids=str)
def test_a_network(options):
    """Weights of the examples and all; against optax under jax.grad, and against jax.grad of the objective."""
    model, loss = hg.chain(hg.linear(4), hg.tanh(), hg.linear(5)), layers.ctc_loss(**options)
    rng, weights = np.random.default_rng(1), np.array([1.0, -0.5, 2.0])
    like = jax.eval_shape(model.init, jax.random.key(0), X)
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), like)

    def reference(params):
        losses = optax_loss(model.forward(params, X)[0], TARGET, options.get("blank", 0))
        return jnp.sum(weights * losses)

    @jax.jit
    def every_way(params):
        losses, factors = hg.value_and_factors(model, loss)(params, X, TARGET)
        assert losses.shape == (3,)
        autodiff = jax.value_and_grad(hg.objective(model, loss))(params, X, TARGET, weights)
        by_hand = hg.value_and_grad(model, loss)(params, X, TARGET, weights)
        return by_hand, jax.value_and_grad(reference)(params), autodiff, hg.materialize(factors, weights)

    by_hand, of_optax, autodiff, weighted = every_way(params)
    assert_same(by_hand, of_optax, 1e-11)
    assert_same(by_hand, autodiff, 1e-11)
    assert_same(weighted, by_hand[1], 1e-11)


@pytest.mark.parametrize("target", [TARGET.labels, tuple(TARGET), None], ids=["labels", "tuple", "None"])
def test_a_target_of_another_kind(target):
    with pytest.raises(hg.InputError, match=r"^ctc_loss: target must be a CtcTarget, got "):
        layers.ctc_loss().forward(jnp.zeros((3, 6, 5)), target)
