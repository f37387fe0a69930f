"""projection under linear_cross_entropy is linear under softmax_cross_entropy: gradients, factors, folds, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers
from handgrad.factors import Recomputed

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3, 5))
LABELS = np.array([[0, 6, 1], [2, 2, 3], [-1, 4, -1], [5, 0, 0]])
WEIGHTS = np.array([0.5, -2.0, 0.0, 1.0])
OPTIONS = [{"ignore_index": -1}, {"ignore_index": -1, "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 2.0}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "everything"])


def models(bias=True):
    """The same body under both heads."""
    return tuple(
        hg.chain(hidden=hg.linear(6), tanh=hg.tanh(), head=head(7, bias=bias))
        for head in (hg.linear, layers.projection)
    )


def losses(options, chunk=4):
    return hg.softmax_cross_entropy(**options), layers.linear_cross_entropy(chunk=chunk, **options)


def drawn(layer):
    """Parameters of the layer, none of them zero."""
    rng = np.random.default_rng(1)
    like = jax.eval_shape(layer.init, jax.random.key(0), X)
    return jax.tree.map(lambda p: rng.standard_normal(p.shape) / 2, like)


@pytest.mark.parametrize(("options", "bias"), [(OPTIONS[0], False), (OPTIONS[1], True)], ids=["plain", "everything"])
def test_gradients_are_those_of_linear_and_of_autodiff(options, bias):
    (whole, chunked), (loss, in_chunks) = models(bias), losses(options)

    @jax.jit
    def three_ways(params, x):
        of_linear = hg.value_and_grad(whole, loss, argnums=(0, 1))
        by_hand = hg.value_and_grad(chunked, in_chunks, argnums=(0, 1))
        autodiff = jax.value_and_grad(hg.objective(chunked, in_chunks), argnums=(0, 1))
        return [way(params, x, LABELS, WEIGHTS) for way in (by_hand, autodiff, of_linear)]

    *found, expected = three_ways(drawn(whole), X)
    for way in found:
        assert_same(way, expected)


@every_option
def test_factors_have_the_same_folds(options):
    """Weights afterwards, exact per-example norms and second moments."""
    (whole, chunked), (loss, in_chunks) = models(), losses(options)

    def questions(params, model, loss):
        C, factors = hg.value_and_factors(model, loss)(params, X, LABELS)
        head = factors["head"]
        assert all(isinstance(factor, Recomputed) == (model is chunked) for factor in head)
        folds = [(f.sq_norms(), f.second_moment(), f.per_example()) for f in head]
        return C, hg.materialize(factors), hg.materialize(factors, WEIGHTS), folds

    both = jax.jit(lambda params: (questions(params, chunked, in_chunks), questions(params, whole, loss)))
    assert_same(*both(drawn(whole)))


def test_past_an_auxiliary_loss():
    """carry_auxiliary takes a Projection for one output, not for a pair with a loss of its own."""
    loss, in_chunks = (layers.add_auxiliary(loss, 0.1) for loss in losses(OPTIONS[0]))
    whole, chunked = (
        hg.chain(layers.begin_auxiliary(), layers.carry_auxiliary(head(7))) for head in (hg.linear, layers.projection)
    )
    params = ((), drawn(hg.linear(7)))
    both = (chunked, in_chunks), (whole, loss)
    assert_same(*jax.jit(lambda params: [hg.value_and_grad(*of)(params, X, LABELS, WEIGHTS) for of in both])(params))


def test_parameters_are_linears():
    heads = hg.linear(7), layers.projection(7)
    x = jax.ShapeDtypeStruct((2, 5), np.float32)
    one, two = jax.jit(lambda key: [head.init(key, x) for head in heads])(jax.random.key(1))
    assert_same(one, two)
    assert isinstance(two, hg.LinearParams)
    assert jax.eval_shape(layers.projection(7, bias=False).init, jax.random.key(1), X).b is None


def test_the_output_is_not_multiplied():
    head = layers.projection(7)
    params = drawn(head)
    y, _ = head.forward(params, X)
    assert isinstance(y, layers.Projection)
    assert (y.X is X, y.W is params.W, y.b is params.b) == (True, True, True)


def test_under_custom_vjp():
    """The head alone, as a function of JAX: its cotangent comes as a Projection of arrays."""
    head = layers.projection(7)

    def program(f, params, x):
        return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(f(params, x)))

    @jax.jit
    def both(params, x):
        functions = hg.custom_vjp(head), lambda params, x: layers.Projection(x, *params)
        return [jax.grad(program, argnums=(1, 2))(f, params, x) for f in functions]

    assert_same(*both(drawn(head), X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda head, params, loss: head.forward((), X), r"linear: params must be LinearParams, got tuple"),
        (
            lambda head, params, loss: head.forward(params, X[..., :2]),
            r"linear_forward: X must have shape \(4, 3, 5\) to meet W \(5, 7\), got float64 \(4, 3, 2\)",
        ),
        (
            lambda head, params, loss: head.backward((), X),
            r"projection: dy must be a Projection, got float64 \(4, 3, 5\)",
        ),
        (
            lambda head, params, loss: layers.tied_projection(7).backward((), X),
            r"tied_projection: dy must be a Projection, got float64 \(4, 3, 5\)",
        ),
        (
            lambda head, params, loss: loss.forward(X, LABELS),
            r"linear_cross_entropy: prediction must be a Projection, got float64 \(4, 3, 5\)",
        ),
        (
            lambda head, params, loss: hg.softmax_cross_entropy().forward(head.forward(params, X)[0], LABELS),
            r"softmax_cross_entropy_forward: the logits Z must be an array, got Projection",
        ),
        (lambda head, params, loss: layers.projection(0), r"linear: n_out must be a positive integer, got 0"),
    ],
    ids=["params", "width", "dy", "dy-tied", "logits", "another-loss", "n_out"],
)
def test_bad_input(call, message):
    head = layers.projection(7)
    with pytest.raises(hg.InputError, match=f"^{message}"):
        call(head, drawn(head), layers.linear_cross_entropy())
