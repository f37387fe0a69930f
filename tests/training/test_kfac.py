"""K-FAC's update: the inverses it multiplies with, its averages, and whole steps in one program."""

from functools import partial

import jax
import numpy as np
import optax
from helpers import assert_refused, assert_same, drawn, noise

import handgrad as hg
from handgrad.factors import Outer, Total
from handgrad.folds.curvature import Diagonal, Kronecker, kfac_factors, kflr_factors, sampled_factors
from handgrad.training import init_state, kfac_step, scale_by_kfac

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
FIRST = jax.random.fold_in(KEY, 0)  # of the first step
LIKE = {"W": Kronecker(np.zeros((3, 3)), np.zeros((2, 2))), "b": Diagonal(np.zeros(2))}
PARAMS = {"W": np.zeros((3, 2)), "b": np.zeros(2)}
DAMPING = 0.2


def normal(*shape):
    return RNG.standard_normal(shape)


def curvature():
    """The curvature of five examples, and a gradient."""
    factors = {"W": Outer(normal(5, 3), normal(5, 2)), "b": Total(normal(5, 2))}
    return jax.jit(kfac_factors)(factors), {"W": normal(3, 2), "b": normal(2)}


def expected_update(averages, g):
    """Solved with matrices written out, in NumPy."""
    A, G, d = (np.asarray(side) for side in (averages["W"].A, averages["W"].G, averages["b"].d))
    pi = np.sqrt((np.trace(A) / 3) / (np.trace(G) / 2))
    C = np.kron(A + pi * DAMPING**0.5 * np.eye(3), G + DAMPING**0.5 / pi * np.eye(2))
    return {"W": np.linalg.solve(C, g["W"].reshape(-1)).reshape(3, 2), "b": g["b"] / (d + DAMPING)}


def test_averages_and_inverses():
    """Evenly at first, by decay later; inverses in steps 1 and 3, held in steps 2 and 4."""
    transformation = scale_by_kfac(LIKE, damping=DAMPING, decay=0.6, inverse_every=2)
    state, update = transformation.init(PARAMS), jax.jit(transformation.update)
    averages, inverted = LIKE, LIKE
    for step, old in enumerate([0, 1 / 2, 0.6, 0.6]):
        blocks, g = curvature()
        averages = jax.tree.map(lambda a, b, old=old: old * a + (1 - old) * np.asarray(b), averages, blocks)
        inverted = averages if step % 2 == 0 else inverted
        found, state = update(g, state, PARAMS, kfac_factors=blocks)
        assert_same(state.averages, averages)
        assert_same(found, expected_update(inverted, g), rtol=1e-11)
    assert state.step == 4


def test_the_norm_constraint():
    """An update whose ⟨u, g⟩ is above the bound is scaled to have it; one below stays as it is."""
    blocks, g = curvature()

    def updated(*bounds):
        of_bounds = [scale_by_kfac(LIKE, damping=DAMPING, norm_constraint=bound) for bound in bounds]
        return jax.jit(lambda: [one.update(g, one.init(PARAMS), PARAMS, kfac_factors=blocks)[0] for one in of_bounds])()

    (free,) = updated(None)
    sq_norm = float(optax.tree.vdot(free, g))
    above, below = updated(2 * sq_norm, sq_norm / 9)
    assert_same(above, free)
    assert_same(below, jax.tree.map(lambda u: u / 3, free))


def test_one_step_solves_least_squares():
    """K-FAC of a linear layer and a squared error is the whole Hessian: a step of length 1 is Newton's."""
    model, loss, x, target = hg.linear(2, bias=False), hg.squared_error(), normal(6, 3), normal(6, 2)

    @jax.jit
    def stepped(params):
        blocks = kflr_factors(model, loss, params, x, target)
        optimizer = optax.chain(scale_by_kfac(blocks, damping=1e-18), optax.scale(-1.0))
        grads = hg.grad(model, loss)(params, x, target)
        updates, _ = optimizer.update(grads, optimizer.init(params), params, kfac_factors=blocks)
        return optax.apply_updates(params, updates)

    found = stepped(hg.LinearParams(normal(3, 2)))
    assert_same(found.W, np.linalg.lstsq(x, target)[0], rtol=1e-8)  # a damping of 1e-18 adds √λ = 1e-9 to A


MODEL = hg.chain(first=hg.linear(4), tanh=hg.tanh(), blocks=hg.repeat(hg.residual(hg.linear(4)), 2), head=hg.linear(3))
X, LABELS = normal(8, 3), RNG.integers(0, 3, 8)
LOSS = hg.softmax_cross_entropy()


def optimizer_of(model, loss, params, x, target, rate=0.1, **options):
    like = jax.eval_shape(lambda p: kfac_factors(hg.value_and_factors(model, loss)(p, x, target)[1]), params)
    return optax.chain(scale_by_kfac(like, **options), optax.scale(-rate))


def test_a_whole_step():
    """One step is materialized gradients, K-FAC's update of them and optax's."""
    params = drawn(MODEL, X)
    optimizer = optimizer_of(MODEL, LOSS, params, X, LABELS, damping=DAMPING)
    weights = np.linspace(0, 1, 8)

    @jax.jit
    def both(params):
        state = init_state(params, optimizer, KEY)
        value, grads = hg.value_and_grad(MODEL, LOSS)(params, X, LABELS, weights)
        draws = {
            "sampled": sampled_factors(MODEL, LOSS)(params, X, LABELS, jax.random.split(FIRST)[1]),
            "empirical": hg.value_and_factors(MODEL, LOSS)(params, X, LABELS)[1],
        }
        steps = {}
        for fisher, factors in draws.items():
            step = kfac_step(MODEL, LOSS, optimizer, mode="reduce", fisher=fisher)
            blocks = kfac_factors(factors, "reduce")
            updates, _ = optimizer.update(grads, state.opt_state, params, kfac_factors=blocks)
            steps[fisher] = step(state, X, LABELS, weights), (optax.apply_updates(params, updates), value)
        return steps

    for (found, value), expected in both(params).values():
        assert_same((found.params, value), expected)
        assert found.step == 1


def test_layers_that_draw_noise_get_a_key_of_their_own():
    """The value is the objective at the noise of the first half of the key, and not that of no noise."""
    model, target = hg.chain(hg.linear(3), noise(), hg.linear(2)), normal(8, 2)
    params = drawn(model, X)
    optimizer = optimizer_of(model, hg.l2_loss(), params, X, target)

    @jax.jit
    def values(key):
        _, value = kfac_step(model, hg.l2_loss(), optimizer)(init_state(params, optimizer, key), X, target)
        objective = hg.objective(model, hg.l2_loss())
        noisy = objective(params, X, target, key=jax.random.split(jax.random.fold_in(key, 0))[0])
        return value, noisy, objective(params, X, target)

    value, noisy, without = values(KEY)
    assert_same(value, noisy)
    assert abs(value - without) > 1e-3


def test_training_is_one_program():
    """Thirty steps in a scan, inversions every fifth: the loss falls to a twentieth."""
    params = jax.jit(MODEL.init)(KEY, X)
    options = {"damping": 0.03, "inverse_every": 5, "norm_constraint": 0.1}
    optimizer = optimizer_of(MODEL, LOSS, params, X, LABELS, rate=0.3, **options)
    step = kfac_step(MODEL, LOSS, optimizer)

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda state, _: step(state, X, LABELS), state, length=30)

    _, losses = train(init_state(params, optimizer, KEY))
    assert losses[-1] < losses[0] / 20


def test_bad_input():
    transformation = scale_by_kfac(LIKE)
    state, optimizer = transformation.init(PARAMS), optax.chain(transformation)
    options = {
        "damping must be a positive number, got 0.0": {"damping": 0.0},
        "damping must be a positive number, got -0.001": {"damping": -1e-3},
        r"decay must be in \[0, 1\), got 1.0": {"decay": 1.0},
        "norm_constraint must be a positive number, got 0": {"norm_constraint": 0},
        "inverse_every must be a positive integer, got 0": {"inverse_every": 0},
    }
    updates = {
        "must be given to update, as kfac_step gives them, got none": None,
        "must have the structure of like.*": {"W": LIKE["W"]},
        r"must be like float64 \(2,\), got float64 \(3,\).*": {"W": LIKE["W"], "b": Diagonal(np.zeros(3))},
    }
    steps = {
        "loss must have a draw.*": partial(kfac_step, MODEL, hg.absolute_error(), optimizer),
        "fisher must be 'sampled' or 'empirical', got 'true'": partial(
            kfac_step, MODEL, LOSS, optimizer, fisher="true"
        ),
        "optimizer must have scale_by_kfac in it, got a state without a KfacState": lambda: kfac_step(
            MODEL, LOSS, optax.adam(0.1)
        )(init_state(PARAMS, optax.adam(0.1), KEY), np.zeros((2, 3)), np.zeros((2, 2))),
        "mode must be 'expand' or 'reduce', got 'all'": partial(kfac_step, MODEL, LOSS, optimizer, mode="all"),
    }
    update = partial(transformation.update, PARAMS, state, PARAMS)
    assert_refused(
        {f"scale_by_kfac: {said}": partial(scale_by_kfac, LIKE, **wrong) for said, wrong in options.items()}
        | {f"scale_by_kfac: kfac_factors {said}": partial(update, kfac_factors=b) for said, b in updates.items()}
        | {f"kfac_step: {said}": call for said, call in steps.items()}
    )


def test_a_step_under_linear_cross_entropy():
    """The step of linear and softmax_cross_entropy, whose params and state are the same."""
    x, labels = normal(6, 4), RNG.integers(0, 3, 6)
    heads = (hg.linear(3), LOSS), (hg.projection(3), hg.linear_cross_entropy(chunk=4))
    models = [(hg.chain(hg.linear(5), hg.tanh(), head), loss) for head, loss in heads]
    params = drawn(models[0][0], x)

    @jax.jit
    def steps(params):
        made = {"sampled": [], "empirical": []}
        for model, loss in models:
            optimizer = optimizer_of(model, loss, params, x, labels, damping=DAMPING)
            for fisher, of_both in made.items():
                step = kfac_step(model, loss, optimizer, fisher=fisher)
                of_both.append(step(init_state(params, optimizer, KEY), x, labels))
        return made

    for plain, in_chunks in steps(params).values():
        assert_same(in_chunks, plain, rtol=1e-11)
