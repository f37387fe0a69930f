"""Factors of what is pulled back in place of the loss's slope."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_refused, assert_same
from jax.flatten_util import ravel_pytree
from whole_models import LOSS, normal_params

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
    @jax.jit
    def both(params):
        logits, _ = MODEL.forward(params, X)
        drawn = jnp.argmin(LOSS.draw(LOSS.forward(logits, LABELS)[1], KEY), axis=-1)
        _, expected = hg.value_and_factors(MODEL, LOSS)(params, X, drawn)
        return sampled_factors(MODEL, LOSS)(params, X, LABELS, KEY), expected

    assert_same(*both(normal_params(MODEL, X)))


BODY = {"hidden": hg.linear(2), "tanh": hg.tanh()}
WHOLE, CHUNKED = (hg.chain(**BODY, head=head(N)) for head in (hg.linear, layers.projection))


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

    both = jax.jit(lambda *args: (questions(chunked, in_chunks, *args), questions(whole, loss, *args)))
    assert_same(*both(normal_params(whole, X), normal_params(whole, X, seed=2)))


def test_the_ggn_of_a_projection_is_positive():
    """Also with an auxiliary loss around it."""
    model = hg.chain(layers.begin_auxiliary(), *map(layers.carry_auxiliary, (*BODY.values(), layers.projection(N))))
    loss = layers.add_auxiliary(layers.linear_cross_entropy(chunk=4), 0.1)
    flat, unravel = ravel_pytree(normal_params(model, X))

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
    for head, loss in ((hg.linear, LOSS), (layers.projection, layers.linear_cross_entropy())):
        model = hg.chain(hg.linear(2), hg.batch_norm(), head(N))
        params = jax.eval_shape(model.init, KEY, X)
        structures.append(jax.tree.structure(jax.eval_shape(sampled_factors(model, loss), params, X, LABELS, KEY)))
    assert structures[0] == structures[1]


def test_a_projection_needs_a_loss_that_says_how_it_is_multiplied():
    params = jax.eval_shape(CHUNKED.init, KEY, X)
    of_somebody = layers.linear_cross_entropy()._replace(through=None, root=lambda *_: None, draw=lambda *_: None)

    def call(f, model, loss):
        rest = (KEY,) if f is sampled_factors else ()
        made = sampled_factors(model, loss) if rest else partial(f, model, loss)
        return partial(jax.eval_shape, lambda p: made(p, X, LABELS, *rest), params)

    of_logits = call(ggn_vector_product, WHOLE, layers.linear_cross_entropy())
    without_root = call(ggn_diagonal, CHUNKED, layers.linear_cross_entropy(z_loss=0.1))
    must = "loss must have a `through` .* as linear_cross_entropy has.*"
    functions = ggn_vector_product, ggn_diagonal, kflr_factors, sampled_factors
    assert_refused(
        {f"{f.__name__}: {must}": call(f, CHUNKED, of_somebody) for f in functions}
        | {"linear_cross_entropy: prediction must be a Projection, got float64.*": of_logits}
        | {"ggn_diagonal: loss must have a root.*": without_root}
    )


def test_the_noise_is_that_of_the_models_key():
    """Two keys: with the model's, every function has the mask of `value_and_factors`; the draw has its own."""
    model, loss = hg.chain(hg.linear(8), hg.dropout(0.5), hg.linear(2)), hg.squared_error()
    x, target = X[:, 0], RNG.standard_normal((BATCH, 2))
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

    found, expected, of_J, exact, estimated, of_draw = run(normal_params(model, x))
    assert_same(found, expected, 1e-11)
    assert (np.asarray(found[2].W.A) == 0).any()  # a mask
    assert_same(exact[0], of_J, 1e-11)
    assert_same(estimated, of_draw, 1e-11)
    np.testing.assert_allclose(exact[1][2].W.A, estimated[1][2].W.A, rtol=1e-11)


def test_bad_input():
    params, without = jax.eval_shape(MODEL.init, KEY, X), hg.softmax_cross_entropy(z_loss=0.1)
    modes, both = "mode must be 'expand' or 'reduce', got 'kfra'", "draw_key must come with samples, got draw_key "
    for f in (ggn_diagonal, kflr_factors):
        call = partial(partial, f, MODEL, params=params, x=X, target=LABELS)
        rows = {
            "loss must have a root, as softmax_cross_entropy .* got none": call(loss=without),
            "loss must have a draw.*": call(loss=hg.absolute_error(), draw_key=KEY, samples=2),
            "samples must be a positive integer, got 0": call(loss=LOSS, draw_key=KEY, samples=0),
            both + "NoneType and samples 3": call(loss=LOSS, key=KEY, samples=3),
            both + r"key<fry> \(\) and samples None": call(loss=LOSS, draw_key=KEY),
            "expected a Loss.*": call(loss=hg.softmax_cross_entropy),
            "expected a Layer.*": partial(f, hg.tanh, hg.squared_error(), params, X, LABELS),
        }
        assert_refused({f"{f.__name__}: {said}": run for said, run in rows.items()})
    assert_refused(
        {
            "kflr_factors: " + modes: partial(kflr_factors, MODEL, LOSS, params, X, LABELS, mode="kfra"),
            "kfac_factors: " + modes: partial(kfac_factors, (), mode="kfra"),
            "sampled_factors: loss must have a draw.*": partial(sampled_factors, MODEL, without),
            "sampled_factors: expected a Layer.*": partial(sampled_factors, hg.tanh, without),
        }
    )
