import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.factors import Contraction

KEY = jax.random.key(0, impl="unsafe_rbg")  # threefry takes longer to compile
RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((2, 4, 3, 6))


def test_init():
    x = jax.ShapeDtypeStruct(X.shape, jnp.float32)
    params = layers.einsum("bti,io->bto", (6, 5)).init(KEY, np.ones(x.shape, x.dtype))
    assert isinstance(params, layers.EinsumParams)
    assert (params.W.shape, params.W.dtype) == ((6, 5), jnp.float32)
    assert (np.asarray(layers.einsum("bti,io->bto", (6, 5)).init(KEY, x).W) == params.W).all()
    ones = layers.einsum("bti,io->bto", (6, 5), init_W=jax.nn.initializers.ones).init(KEY, X).W
    assert (np.asarray(ones) == 1).all()


@pytest.mark.parametrize(
    ("subscripts", "shape", "x", "variance"),
    [
        ("bi,io->bo", (100, 400), (1, 100), 1 / 100),
        ("bhi,hio->bho", (10, 40, 100), (1, 10, 40), 1 / 40),
        ("bij,ijo->bo", (10, 20, 200), (1, 10, 20), 1 / 200),
        ("bi,io->bio", (100, 400), (1, 100), 1),
        ("bi,i", (40000,), (1, 40000), 1 / 40000),
    ],
)
def test_the_default_initializer_keeps_the_variance(subscripts, shape, x, variance):
    """1 / the number of products that an element of Y sums."""
    if "->" not in subscripts:
        subscripts += "->b"
    W = np.asarray(layers.einsum(subscripts, shape).init(KEY, jax.ShapeDtypeStruct(x, jnp.float64)).W)
    assert abs(W.std() / variance**0.5 - 1) < 0.03


def test_a_low_rank_chain_against_autodiff():
    """Three of them and an activation: a Tucker form of a (6, 6) matrix."""
    model = hg.chain(
        layers.einsum("bti,ir->btr", (6, 2)),
        layers.einsum("btr,rs->bts", (2, 3)),
        hg.tanh(),
        layers.einsum("bts,so->bto", (3, 6)),
    )
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: rng.standard_normal(p.shape), jax.eval_shape(model.init, KEY, X))

    @jax.jit
    def both(params, x):
        autodiff = jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1))
        return hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1))(params, x, DY), autodiff(params, x, DY)

    assert_same(*both(params, X))


def test_it_equals_linear_and_repeats():
    mine, linear = hg.repeat(layers.einsum("bti,io->bto", (6, 6)), 3), hg.repeat(hg.linear(6, bias=False), 3)

    @jax.jit
    def both(W):
        dx, one = mine.backward(mine.forward(layers.EinsumParams(W), X)[1], DY)
        expected, two = linear.backward(linear.forward(hg.LinearParams(W), X)[1], DY)
        assert isinstance(one.W, hg.factors.Stacked)
        assert isinstance(one.W.factor, Contraction)
        return (dx, one.W.sum(), one.W.sq_norms()), (expected, two.W.sum(), two.W.sq_norms())

    assert_same(*both(np.random.default_rng(1).standard_normal((3, 6, 6))))


@pytest.mark.parametrize("shape", [(0, 3), (2.0, 3), ("i", 3)])
def test_shape_is_of_positive_integers(shape):
    with pytest.raises(hg.InputError, match=r"^einsum: each size in shape must be a positive integer, got "):
        layers.einsum("bi,io->bo", shape)


def test_params_of_another_layer():
    layer = layers.einsum("bti,io->bto", (6, 5))
    for params in ((), None, hg.LinearParams(X[0])):
        with pytest.raises(hg.InputError, match=r"^einsum: params must be EinsumParams, got "):
            layer.forward(params, X)
    with pytest.raises(hg.InputError, match=r"^einsum: params.W must have shape \(6, 5\), got float64 \(6, 4\)$"):
        layer.forward(layers.EinsumParams(np.ones((6, 4))), X)
    with pytest.raises(hg.InputError, match=r"^einsum: x must have a floating-point dtype, got "):
        layer.init(KEY, X.astype(int))
    with pytest.raises(hg.InputError, match=r"^contraction_forward: W must have 6 along axis 0 for "):
        layers.einsum("bti,io->bto", (5, 5)).init(KEY, X)
