import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.factors import Contraction

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, DY = jnp.asarray(RNG.standard_normal((4, 3, 6))), jnp.asarray(RNG.standard_normal((4, 3, 6)))


def test_init():
    params = layers.einsum("bti,io->bto", (6, 5)).init(KEY, X.astype(jnp.float32))
    assert isinstance(params, layers.EinsumParams)
    assert (params.W.shape, params.W.dtype) == ((6, 5), jnp.float32)
    assert (
        layers.einsum("bti,io->bto", (6, 5)).init(KEY, jax.ShapeDtypeStruct(X.shape, jnp.float32)).W == params.W
    ).all()
    ones = layers.einsum("bti,io->bto", (6, 5), init_W=jax.nn.initializers.ones).init(KEY, X).W
    assert (ones == 1).all()


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
def test_the_default_initialiser_keeps_the_variance(subscripts, shape, x, variance):
    """1 / the number of products that an element of Y sums."""
    if "->" not in subscripts:
        subscripts += "->b"
    W = layers.einsum(subscripts, shape).init(KEY, jax.ShapeDtypeStruct(x, jnp.float64)).W
    assert abs(float(W.std()) / variance**0.5 - 1) < 0.03


def test_a_low_rank_chain_against_autodiff():
    """Three of them and an activation: a Tucker form of a (6, 6) matrix."""
    model = hg.chain(
        layers.einsum("bti,ir->btr", (6, 2)),
        layers.einsum("btr,rs->bts", (2, 3)),
        hg.tanh(),
        layers.einsum("bts,so->bto", (3, 6)),
    )
    params = model.init(KEY, X)
    found = jax.jit(hg.value_and_grad(model, hg.l2_loss(), argnums=(0, 1)))(params, X, DY)
    expected = jax.jit(jax.value_and_grad(hg.objective(model, hg.l2_loss()), argnums=(0, 1)))(params, X, DY)
    assert_same(found, expected)


def test_it_equals_linear_and_repeats():
    mine, linear = hg.repeat(layers.einsum("bti,io->bto", (6, 6)), 3), hg.repeat(hg.linear(6, bias=False), 3)
    W = mine.init(KEY, X).W
    one = jax.jit(lambda W: mine.backward(mine.forward(layers.EinsumParams(W), X)[1], DY))(W)
    two = jax.jit(lambda W: linear.backward(linear.forward(hg.LinearParams(W), X)[1], DY))(W)
    assert isinstance(one[1].W, hg.Stacked)
    assert isinstance(one[1].W.factor, Contraction)
    assert_same(one[0], two[0])
    assert_same(one[1].W.sum(), two[1].W.sum())
    assert_same(one[1].W.sq_norms(), two[1].W.sq_norms())


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
        layer.forward(layers.EinsumParams(jnp.ones((6, 4))), X)
    with pytest.raises(hg.InputError, match=r"^einsum: x must have a floating-point dtype, got "):
        layer.init(KEY, X.astype(int))
    with pytest.raises(hg.InputError, match=r"^contraction_forward: W must have 6 along axis 0 for "):
        layers.einsum("bti,io->bto", (5, 5)).init(KEY, X)
