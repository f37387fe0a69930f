"""branches: layers side by side, each with an input of its own."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import assert_refused, assert_same, noise

import handgrad as hg

KEY = jax.random.key(0, impl="unsafe_rbg")
RNG = np.random.default_rng(0)
X, IDS = jnp.asarray(RNG.standard_normal((4, 3))), jnp.asarray([[0, 1], [2, 2], [1, 0], [3, 1]])
DY = jax.device_put(RNG.standard_normal((4, 2))), jax.device_put(RNG.standard_normal((4, 2, 5)))
MODEL = hg.branches(hg.chain(hg.linear(2), hg.tanh(), noise()), hg.embedding(4, 5, dtype=float))


def test_each_branch_on_its_own():
    """Outputs and gradients are the layers' own, and those of jax.vjp; an input of integers has no cotangent."""
    params = MODEL.init(KEY, (X, IDS))

    @jax.jit
    def both(params):
        y, residuals = MODEL.forward(params, (X, IDS), KEY)
        dx, factors = MODEL.backward(residuals, DY)
        assert dx[1] is None
        kinds = [type(factor) for factor in jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)]
        assert kinds == [hg.factors.Outer, hg.factors.Total, hg.factors.Scatter]
        expected, vjp = jax.vjp(lambda params, x: MODEL.forward(params, (x, IDS), KEY)[0], params, X)
        (without, _), _ = MODEL.forward(params, (X, IDS))
        own, _ = hg.chain(hg.linear(2), hg.tanh()).forward(params[0][:2], X)
        return (y, (hg.materialize(factors), dx[0])), (expected, vjp(DY)), (without, own)

    found, expected, own = both(params)
    assert_same(found, expected)
    assert_same(*own)
    assert (np.asarray(found[0][0]) != own[0]).any()


def test_a_coupling_stays_in_its_branch():
    model = hg.branches(hg.chain(hg.linear(2), hg.batch_norm()), hg.linear(2))
    assert model.couples.startswith("in layer 0.1: batch_norm couples")

    def run(key):
        params = model.init(key, (X, X))
        one, other = model.backward(model.forward(params, (X, X))[1], (DY[0], DY[0]))[1]
        assert isinstance(one[0].W, hg.factors.Coupled)
        assert isinstance(other.W, hg.factors.Outer)

    jax.eval_shape(run, KEY)


def test_refusals():
    sentence = "must be a tuple of 2, one for each layer, got"
    assert_refused(
        {
            "branches: expected at least one layer, got none": lambda: hg.branches(),
            "branches: expected a Layer, .*": lambda: hg.branches(hg.linear),
            rf"branches: x {sentence} float64 \(4, 3\)": lambda: MODEL.init(KEY, X),
            f"branches: params {sentence} a tuple of 0": lambda: MODEL.forward((), (X, IDS)),
            r"added: x must be a tuple of arrays, got float64 \(4, 3\)": lambda: hg.added().forward((), X),
            r"added: x must have entries like the first, .*, got float64 \(4, 2\)": lambda: hg.added().forward(
                (), (X, X[:, :2])
            ),
            "in layer 1: embedding_forward: .*": lambda: MODEL.forward(MODEL.init(KEY, (X, X)), (X, X)),
        }
    )
