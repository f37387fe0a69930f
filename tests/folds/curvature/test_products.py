"""Products with the GGN and the Hessian, against the matrices of autodiff."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same, noise
from jax.flatten_util import ravel_pytree
from whole_models import normal_params

import handgrad as hg
from handgrad.folds.curvature import ggn_vector_product, hessian_vector_product
from handgrad.folds.curvature._tangents import check_like_params

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH = 3


def normal(*shape):
    return RNG.standard_normal(shape)


def drawn(model, x):
    """Parameters, and a direction of them."""
    return normal_params(model, x), normal_params(model, x, seed=2)


IDS = RNG.integers(0, 4, (BATCH, 2))
IMAGES = normal(BATCH, 4, 4, 2)
MODELS = {
    "mlp": (
        hg.chain(
            body=hg.chain(hg.linear(4), hg.tanh()), blocks=hg.repeat(hg.residual(hg.linear(4)), 2), head=hg.linear(3)
        ),
        hg.softmax_cross_entropy(),
        normal(BATCH, 3),
        RNG.integers(0, 3, BATCH),
    ),
    "attention, tied": (
        hg.tied_embedding(4, 4, hg.chain(hg.residual(hg.multi_head_attention(2, causal=True)), hg.layer_norm())),
        hg.softmax_cross_entropy(0.1),
        IDS,
        IDS[:, ::-1],
    ),
    "convolutions": (
        hg.chain(hg.layers.convolution(2, 3), hg.gelu(), hg.layers.global_average_pool(), hg.linear(2)),
        hg.softmax_cross_entropy(z_loss=0.3),
        IMAGES,
        RNG.integers(0, 2, BATCH),
    ),
}
PRODUCTS = ggn_vector_product, hessian_vector_product


def by_autodiff(model, loss, params, x, target, weights, v):
    """The GGN's product as vjp, jvp of the loss's gradient and jvp; the Hessian's as the jvp of a gradient."""

    def cost(prediction):
        return jnp.vdot(jnp.full(BATCH, 1 / BATCH) if weights is None else weights, loss.forward(prediction, target)[0])

    def predict(p):
        return model.forward(p, x)[0]

    prediction, dz = jax.jvp(predict, (params,), (v,))
    curved = jax.jvp(jax.grad(cost), (prediction,), (dz,))[1]
    return jax.vjp(predict, params)[1](curved)[0], jax.jvp(jax.grad(lambda p: cost(predict(p))), (params,), (v,))[1]


def ggn_of(model, loss, params, x, target):
    """Jᵀ H J with each of them materialized."""
    flat, unravel = ravel_pytree(params)
    prediction = model.forward(params, x)[0]
    J = jax.jacrev(lambda p: model.forward(unravel(p), x)[0].reshape(-1))(flat)
    cost = jax.hessian(lambda z: loss.forward(z.reshape(prediction.shape), target)[0].mean())
    return J.T @ cost(prediction.reshape(-1)) @ J


@pytest.mark.parametrize("name", MODELS)
def test_against_autodiff(name):
    model, loss, x, target = MODELS[name]
    weights = np.array([0.5, -1.0, 2.0]) if name == "mlp" else None

    @jax.jit
    def both(params, v, weights):
        products = [f(model, loss, params, x, target, weights) for f in PRODUCTS]
        expected = by_autodiff(model, loss, params, x, target, weights, v)
        # Each product as one vector: an attention's bias of keys has a Hessian of 0, in autodiff's sums and in ours.
        return [[ravel_pytree(one)[0] for one in two] for two in ([product(v) for product in products], expected)]

    assert_same(*both(*drawn(model, x), weights), rtol=1e-11)


def test_against_the_matrices():
    """Jᵀ H J and jax.hessian of the objective: all columns."""
    model, loss, x, target = MODELS["mlp"]
    flat, unravel = ravel_pytree(normal_params(model, x))

    @jax.jit
    def both(flat):
        products = [f(model, loss, unravel(flat), x, target) for f in PRODUCTS]
        columns = [jax.vmap(lambda v, f=f: ravel_pytree(f(unravel(v)))[0])(jnp.eye(flat.size)) for f in products]
        hessian = jax.hessian(lambda p: hg.objective(model, loss)(unravel(p), x, target))(flat)
        return [column.T for column in columns], [ggn_of(model, loss, unravel(flat), x, target), hessian]

    found, expected = both(flat)
    assert_same(found, expected, rtol=1e-11)
    for matrix in found:
        assert_same(matrix, np.transpose(matrix), rtol=1e-13)
    assert np.linalg.eigvalsh(found[0]).min() > -1e-14
    assert np.linalg.eigvalsh(found[1]).min() < -0.1


def test_a_product_is_an_argument_and_a_result_of_compiled_functions():
    """Linearized by one program, multiplied by another, in a while loop too; new parameters compile nothing again."""
    model, loss, x, target = MODELS["mlp"]
    traced = []

    @jax.jit
    def linearize(params):
        traced.append("linearize")
        return ggn_vector_product(model, loss, params, x, target)

    @jax.jit
    def solve(product, b):
        traced.append("solve")

        def damped(v):
            return jax.tree.map(lambda one, two: one + 0.1 * two, product(v), v)

        solution, _ = jax.scipy.sparse.linalg.cg(damped, b, tol=1e-13)
        return solution, damped(solution)

    for params, b in (drawn(model, x), drawn(model, x)[::-1]):
        _, found = solve(linearize(params), b)
        assert_same(found, b, rtol=1e-11)
    assert traced == ["linearize", "solve"]


SMALL = hg.chain(first=hg.linear(2), second=hg.linear(1, bias=False))
SMALL_PARAMS = {"first": hg.LinearParams(np.ones((2, 2)), np.ones(2)), "second": hg.LinearParams(np.ones((2, 1)))}


SMALL_X, SMALL_TARGET = normal(BATCH, 2), normal(BATCH, 1)


def test_without_compiling():
    v = normal_params(SMALL, SMALL_X)
    eager = tuple(f(SMALL, hg.l2_loss(), SMALL_PARAMS, SMALL_X, SMALL_TARGET)(v) for f in PRODUCTS)
    expected = jax.jit(partial(by_autodiff, SMALL, hg.l2_loss()))(SMALL_PARAMS, SMALL_X, SMALL_TARGET, None, v)
    assert_same(eager, expected, rtol=1e-11)


def test_noise_is_drawn_once():
    """With a key the product is that of one draw; without, of none."""
    model, loss = hg.chain(hg.linear(3), noise(), hg.linear(2)), hg.l2_loss()
    x, target = normal(BATCH, 2), normal(BATCH, 2)
    params, v = drawn(model, x)

    @jax.jit
    def both(key):
        frozen = hg.Layer(model.init, lambda p, x: model.forward(p, x, key), model.backward)
        products = tuple(f(model, loss, params, x, target, key=key)(v) for f in PRODUCTS)
        return products, by_autodiff(frozen, loss, params, x, target, None, v)

    for key in (None, KEY):
        assert_same(*both(key), rtol=1e-11)


def test_a_vector_of_another_dtype_and_of_numpy():
    """Cast to params' dtype, in which the product comes back."""

    @jax.jit
    def both(v):
        product = ggn_vector_product(SMALL, hg.l2_loss(), SMALL_PARAMS, SMALL_X, SMALL_TARGET)
        return product(v), product(jax.tree.map(lambda one: one.astype(np.float64), v))

    assert_same(*both(jax.tree.map(np.float32, normal_params(SMALL, SMALL_X))))


VECTOR = "must be like params, float64"
WRONG = {
    rf"{VECTOR} \(2,\) at first.b, got float64 \(3,\)": {"first": hg.LinearParams(np.ones((2, 2)), np.ones(3))},
    "must have params' structure, got nothing at first.b": {"first": hg.LinearParams(np.ones((2, 2)))},
    r"must have params' structure, got float64 \(2,\) at third": {"third": np.ones(2)},
    "must have params' structure, got nothing at first.W": {"first": (np.ones((2, 2)), np.ones(2))},
    rf"{VECTOR} \(2, 1\) at second.W, got float": {"second": hg.LinearParams(3.0)},
}


@pytest.mark.parametrize("f", PRODUCTS, ids=lambda f: f.__name__)
def test_bad_input(f):
    x, target, loss = np.ones((2, 2)), np.ones((2, 1)), hg.l2_loss()
    product = jax.eval_shape(lambda x: f(SMALL, loss, SMALL_PARAMS, x, target), x)
    rows = {
        **{f"v {said}": partial(product, SMALL_PARAMS | changed) for said, changed in WRONG.items()},
        "expected a Layer, .* got function": lambda: f(hg.relu, loss, SMALL_PARAMS, x, target),
        "expected a Loss, .* got function": lambda: f(SMALL, hg.l2_loss, SMALL_PARAMS, x, target),
        r"weights must have shape \(2,\).*": lambda: f(SMALL, loss, SMALL_PARAMS, x, target, np.ones(3)),
        "x and target must have the same batch, got 2 and 3 ex.*": lambda: f(
            SMALL, loss, SMALL_PARAMS, x, np.ones((3, 1))
        ),
    }
    assert_refused({f"{f.__name__}: {said}": call for said, call in rows.items()})


def test_a_name_with_a_dot_hides_no_other():
    """ "a.b" beside a → b: each is compared with its own."""

    def check(n, m):
        params = {"a.b": np.ones(2), "a": {"b": np.ones(3)}}
        check_like_params("here", {"a.b": np.ones(n), "a": {"b": np.ones(m)}}, params)

    check(2, 3)
    assert_refused(
        {
            rf"here: v {VECTOR} \(3,\) at a\.b, got float64 \(2,\)": lambda: check(2, 2),
            rf"here: v {VECTOR} \(2,\) at 'a\.b', got float64 \(3,\)": lambda: check(3, 3),
        }
    )
