"""projection under linear_cross_entropy is linear under softmax_cross_entropy, in every question asked of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.factors import Recomputed

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((4, 3, 5)))
LABELS = np.array([[0, 6, 1], [2, 2, 3], [-1, 4, -1], [5, 0, 0]])
WEIGHTS = jnp.asarray([0.5, -2.0, 0.0, 1.0])
OPTIONS = [
    {"ignore_index": -1},
    {"ignore_index": -1, "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 2.0},
]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "everything"])


def models(bias=True):
    """The same body under both heads."""
    return tuple(
        hg.chain(hidden=hg.linear(6), tanh=hg.tanh(), head=head(7, bias=bias))
        for head in (hg.linear, layers.projection)
    )


def losses(options, chunk=4):
    return hg.softmax_cross_entropy(**options), layers.linear_cross_entropy(chunk=chunk, **options)


def started(model):
    return jax.tree.map(lambda p: p + 0.1, jax.jit(model.init)(jax.random.key(0), X))


@every_option
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_linear_and_of_autodiff(options, bias):
    (whole, chunked), (loss, in_chunks) = models(bias), losses(options)
    params = started(whole)
    expected = jax.jit(hg.value_and_grad(whole, loss, argnums=(0, 1)))(params, X, LABELS, WEIGHTS)
    assert_same(jax.jit(hg.value_and_grad(chunked, in_chunks, argnums=(0, 1)))(params, X, LABELS, WEIGHTS), expected)
    autodiff = jax.value_and_grad(hg.objective(chunked, in_chunks), argnums=(0, 1))
    assert_same(jax.jit(autodiff)(params, X, LABELS, WEIGHTS), expected)


@every_option
def test_factors_answer_the_same_questions(options):
    """Weights afterwards, exact per-example norms and second moments."""
    (whole, chunked), (loss, in_chunks) = models(), losses(options)
    params = started(whole)

    def questions(model, loss):
        C, factors = hg.value_and_factors(model, loss)(params, X, LABELS)
        head = factors["head"]
        folds = [(f.sq_norms(), f.second_moment(), f.per_example()) for f in head]
        return C, hg.materialize(factors), hg.materialize(factors, WEIGHTS), folds

    assert_same(jax.jit(lambda: questions(chunked, in_chunks))(), jax.jit(lambda: questions(whole, loss))())
    _, factors = hg.value_and_factors(chunked, in_chunks)(params, X, LABELS)
    assert all(isinstance(factor, Recomputed) for factor in factors["head"])


def test_parameters_are_linears():
    heads = hg.linear(7), layers.projection(7)
    one, two = (head.init(jax.random.key(1), jax.ShapeDtypeStruct((2, 5), np.float32)) for head in heads)
    assert_same(one, two)
    assert isinstance(two, hg.LinearParams)
    assert layers.projection(7, bias=False).init(jax.random.key(1), X).b is None


def test_the_output_is_not_multiplied():
    head = layers.projection(7)
    params = head.init(jax.random.key(0), X)
    y, _ = head.forward(params, X)
    assert isinstance(y, layers.Projection)
    assert (y.X is X, y.W is params.W, y.b is params.b) == (True, True, True)


def test_under_custom_vjp():
    """The head alone, as a function of JAX: its cotangent comes as a Projection of arrays."""
    head = layers.projection(7)
    params = head.init(jax.random.key(0), X)

    def program(f, params, x):
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(f(params, x)))

    found = jax.grad(program, argnums=(1, 2))(hg.custom_vjp(head), params, X)
    expected = jax.grad(program, argnums=(1, 2))(lambda params, x: layers.Projection(x, *params), params, X)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda head, params, loss: head.forward((), X),
            r"linear: params must be LinearParams, got tuple",
        ),
        (
            lambda head, params, loss: head.forward(params, X[..., :2]),
            r"linear_forward: X must have shape \(4, 3, 5\) to meet W \(5, 7\), got float64 \(4, 3, 2\)",
        ),
        (
            lambda head, params, loss: head.backward((), X),
            r"projection: dy must be a Projection, got float64 \(4, 3, 5\)",
        ),
        (
            lambda head, params, loss: loss.forward(X, LABELS),
            r"linear_cross_entropy: prediction must be a Projection, got float64 \(4, 3, 5\)",
        ),
        (
            lambda head, params, loss: hg.softmax_cross_entropy().forward(head.forward(params, X)[0], LABELS),
            r"softmax_cross_entropy_forward: the logits Z must be an array, got Projection",
        ),
        (
            lambda head, params, loss: layers.projection(0),
            r"linear: n_out must be a positive integer, got 0",
        ),
    ],
    ids=["params", "width", "dy", "logits", "another-loss", "n_out"],
)
def test_bad_input(call, message):
    head = layers.projection(7)
    with pytest.raises(hg.InputError, match=f"^{message}"):
        call(head, head.init(jax.random.key(0), X), layers.linear_cross_entropy())
