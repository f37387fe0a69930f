"""Factors of what is pulled back in place of the loss's slope."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same
from jax.flatten_util import ravel_pytree

import handgrad as hg
from handgrad import layers
from handgrad.folds.curvature import (
    empirical_fisher_diagonal,
    ggn_diagonal,
    ggn_vector_product,
    hessian_vector_product,
    kfac_factors,
    kflr_factors,
    sampled_factors,
)

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
BATCH, TOKENS, N = 3, 2, 3
X = RNG.standard_normal((BATCH, TOKENS, N))
LABELS = RNG.integers(0, N, (BATCH, TOKENS))
MODEL = hg.chain(hg.linear(4), hg.tanh(), hg.linear(N))


def test_sampled_factors_are_those_of_a_target_drawn():
    loss = hg.softmax_cross_entropy()

    @jax.jit
    def both(params):
        logits, _ = MODEL.forward(params, X)
        drawn = jnp.argmin(loss.draw(loss.forward(logits, LABELS)[1], KEY), axis=-1)
        _, expected = hg.value_and_factors(MODEL, loss)(params, X, drawn)
        return sampled_factors(MODEL, loss)(params, X, LABELS, KEY), expected

    assert_same(*both(jax.tree.map(lambda p: np.full(p.shape, 0.5), jax.eval_shape(MODEL.init, KEY, X))))


BODY = {"hidden": hg.linear(2), "tanh": hg.tanh()}
WHOLE, CHUNKED = (hg.chain(**BODY, head=head(N)) for head in (hg.linear, layers.projection))


def with_auxiliary(head):
    """The same head, an auxiliary loss carried past it."""
    carried = (layers.carry_auxiliary(layer) for layer in (*BODY.values(), head(N)))
    return hg.chain(layers.begin_auxiliary(), *carried)


@pytest.mark.parametrize(
    ("bias", "options"), [(True, {"ignore_index": 1}), (False, {"z_loss": 0.1, "softcap": 2.0, "label_smoothing": 0.1})]
)
def test_a_projection_has_the_curvature_of_its_logits(bias, options):
    """The weights that a Projection carries are no prediction: every matrix is that of linear and its logits' loss."""
    whole, chunked = (hg.chain(**BODY, head=head(N, bias=bias)) for head in (hg.linear, layers.projection))
    loss, in_chunks = hg.softmax_cross_entropy(**options), layers.linear_cross_entropy(chunk=4, **options)

    def questions(model, loss, params, v):
        _, factors = hg.value_and_factors(model, loss)(params, X, LABELS)
        found = [f(model, loss, params, X, LABELS)(v) for f in (ggn_vector_product, hessian_vector_product)]
        found += [empirical_fisher_diagonal(factors), kfac_factors(factors), kfac_factors(factors, "reduce")]
        if loss.root or (loss.through and loss.through[1].root):
            found += [f(model, loss, params, X, LABELS) for f in (ggn_diagonal, kflr_factors)]
            found += [kfac_factors(sampled_factors(model, loss)(params, X, LABELS, KEY))]
        return found

    params, v = (
        jax.tree.map(lambda p: RNG.standard_normal(p.shape), jax.eval_shape(whole.init, KEY, X)) for _ in range(2)
    )
    both = jax.jit(lambda *args: (questions(chunked, in_chunks, *args), questions(whole, loss, *args)))
    assert_same(*both(params, v))


def test_the_ggn_of_a_projection_is_positive():
    """Also with an auxiliary loss around it."""
    model, loss = with_auxiliary(layers.projection), layers.add_auxiliary(layers.linear_cross_entropy(chunk=4), 0.1)
    flat, unravel = ravel_pytree(
        jax.tree.map(lambda p: RNG.standard_normal(p.shape), jax.eval_shape(model.init, KEY, X))
    )

    @jax.jit
    def ggn(flat):
        product = ggn_vector_product(model, loss, unravel(flat), X, LABELS)
        return jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size))

    matrix = np.asarray(ggn(flat))
    assert_same(matrix, matrix.T)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues.min() > -1e-14 * eigenvalues.max()


def test_a_head_behind_a_coupling_keeps_its_own_factors():
    """Batch normalization couples what is before it, and not the head behind it, under either loss."""
    structures = []
    for head, loss in ((hg.linear, hg.softmax_cross_entropy()), (layers.projection, layers.linear_cross_entropy())):
        model = hg.chain(hg.linear(2), hg.batch_norm(), head(N))
        params = jax.eval_shape(model.init, KEY, X)
        factors = jax.eval_shape(sampled_factors(model, loss), params, X, LABELS, KEY)
        structures.append(jax.tree.structure(factors))
    assert structures[0] == structures[1]


def test_a_projection_needs_a_loss_that_says_how_it_is_multiplied():
    params = jax.eval_shape(CHUNKED.init, KEY, X)

    def refused(call, *arguments):
        return jax.eval_shape(lambda p: call(*arguments, p, X, LABELS), params)

    of_somebody = layers.linear_cross_entropy()._replace(through=None, root=lambda *_: None, draw=lambda *_: None)
    calls = {
        "ggn_vector_product": ggn_vector_product,
        "ggn_diagonal": ggn_diagonal,
        "kflr_factors": kflr_factors,
        "sampled_factors": lambda model, loss, params, x, y: sampled_factors(model, loss)(params, x, y, KEY),
    }
    for name, call in calls.items():
        with pytest.raises(hg.InputError, match=rf"^{name}: loss must have a `through` .* as linear_cross_entropy has"):
            refused(call, CHUNKED, of_somebody)
    with pytest.raises(hg.InputError, match=r"^linear_cross_entropy: prediction must be a Projection, got float64"):
        refused(ggn_vector_product, WHOLE, layers.linear_cross_entropy())
    with pytest.raises(hg.InputError, match=r"^ggn_diagonal: loss must have a root"):
        refused(ggn_diagonal, CHUNKED, layers.linear_cross_entropy(z_loss=0.1))


def test_the_noise_is_that_of_the_models_key():
    """Two keys: with the model's, every function has the mask of `value_and_factors`; the draw has its own."""
    model, loss = hg.chain(hg.linear(8), hg.dropout(0.5), hg.linear(2)), hg.squared_error()
    x, target = X[:, 0], RNG.standard_normal((BATCH, 2))
    shapes = jax.eval_shape(model.init, KEY, x)
    params = jax.tree.map(lambda p: RNG.standard_normal(p.shape), shapes)
    noise_key, of_draws = jax.random.split(KEY)
    (draw_key,) = jax.random.split(of_draws, 1)

    @jax.jit
    def run(params):
        prediction = model.forward(params, x, noise_key)[0]
        # C = Σ (a − y)²: the target drawn is the prediction minus half the cotangent that it gives.
        drawn = prediction - loss.draw(loss.forward(prediction, target)[1], draw_key) / 2
        expected = hg.value_and_factors(model, loss)(params, x, drawn, noise_key)[1]
        found = sampled_factors(model, loss)(params, x, target, draw_key, noise_key)
        J = jax.jacobian(lambda p: model.forward(p, x, noise_key)[0])(params)
        of_J = jax.tree.map(lambda j: 2 * jnp.sum(j**2, axis=(0, 1)) / BATCH, J)  # H = 2 I
        arguments = (model, loss, params, x, target)
        exact = ggn_diagonal(*arguments, key=noise_key), kflr_factors(*arguments, key=noise_key)
        one_draw = {"draw_key": of_draws, "samples": 1, "key": noise_key}
        estimated = ggn_diagonal(*arguments, **one_draw), kflr_factors(*arguments, **one_draw)
        return found, expected, of_J, exact, estimated, (empirical_fisher_diagonal(expected), kfac_factors(expected))

    found, expected, of_J, exact, estimated, of_draw = run(params)
    assert_same(found, expected, 1e-11)
    assert (np.asarray(found[2].W.A) == 0).any()  # a mask
    assert_same(exact[0], of_J, 1e-11)
    assert_same(estimated, of_draw, 1e-11)
    np.testing.assert_allclose(exact[1][2].W.A, estimated[1][2].W.A, rtol=1e-11)


def test_bad_input():
    params = jax.eval_shape(MODEL.init, KEY, X)
    without = hg.softmax_cross_entropy(z_loss=0.1)
    for function in (ggn_diagonal, kflr_factors):
        where = f"^{function.__name__}: "
        call = functools.partial(function, MODEL, params=params, x=X, target=LABELS)
        with pytest.raises(hg.InputError, match=where + "loss must have a root, as softmax_cross_entropy .* got none$"):
            call(loss=without)
        with pytest.raises(hg.InputError, match=where + "loss must have a draw"):
            call(loss=hg.absolute_error(), draw_key=KEY, samples=2)
        with pytest.raises(hg.InputError, match=where + "samples must be a positive integer, got 0"):
            call(loss=hg.softmax_cross_entropy(), draw_key=KEY, samples=0)
        must = where + "draw_key must come with samples, got draw_key "
        with pytest.raises(hg.InputError, match=must + "NoneType and samples 3"):
            call(loss=hg.softmax_cross_entropy(), key=KEY, samples=3)
        with pytest.raises(hg.InputError, match=must + r"key<fry> \(\) and samples None"):
            call(loss=hg.softmax_cross_entropy(), draw_key=KEY)
        with pytest.raises(hg.InputError, match=where + "expected a Loss"):
            call(loss=hg.softmax_cross_entropy)
        with pytest.raises(hg.InputError, match=where + "expected a Layer"):
            function(hg.tanh, hg.squared_error(), params, X, LABELS)
    with pytest.raises(hg.InputError, match=r"^kflr_factors: mode must be 'expand' or 'reduce', got 'kfra'$"):
        kflr_factors(MODEL, hg.softmax_cross_entropy(), params, X, LABELS, mode="kfra")
    with pytest.raises(hg.InputError, match=r"^kfac_factors: mode must be 'expand' or 'reduce', got 'kfra'$"):
        kfac_factors((), mode="kfra")
    with pytest.raises(hg.InputError, match=r"^sampled_factors: loss must have a draw"):
        sampled_factors(MODEL, without)
    with pytest.raises(hg.InputError, match=r"^sampled_factors: expected a Layer"):
        sampled_factors(hg.tanh, without)
