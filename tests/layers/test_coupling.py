"""Whose examples see one another: every layer and loss says so for itself. And what that leaves of the factors."""

import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupling_rows import HALF, HALF_MEETING, IDS, LABELS, LINEAR, MEETING, OTHERS, RNG, ROWS, STEPS, TABLE, experts
from whole_models import LOSS

import handgrad as hg
from handgrad import layers
from handgrad.factors.coupled import Coupled
from handgrad.layers.layer import from_rule


def test_every_layer_and_loss_is_in_the_table():
    modules = pkgutil.walk_packages(layers.__path__, f"{layers.__name__}.")
    made = {
        name
        for module in map(importlib.import_module, (m.name for m in modules))
        for name in getattr(module, "__all__", ())
        if inspect.isfunction(function := getattr(module, name))
        and inspect.signature(function).return_annotation in (hg.Layer, hg.Loss)
    }
    of_parts = {"from_rule", "loss_from_rule", "placed"}
    assert made - of_parts == {name.replace(",", " ").split()[0] for name in TABLE}


def is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def with_another(tree, c=2):
    """Example c is another one."""

    def of_leaf(a):
        other = -1.3 * a - 0.1 * a**2 if is_float(a) else np.maximum((a + 1) % 3, 1)
        own = np.reshape(np.arange(len(a)) == c, (-1, *(1 for _ in a.shape[1:])))
        return np.where(own, other, a)

    if isinstance(tree, layers.Projection):
        return tree.like(of_leaf(tree.X), tree.W, tree.b)
    if isinstance(tree, layers.CrfScores):
        return tree._replace(Z=of_leaf(tree.Z))
    return jax.tree.map(of_leaf, tree)


def drawn(layer, x, rng):
    """Parameters of a layer, by NumPy: an eager init compiles a program for each shape."""
    like = jax.eval_shape(lambda: layer.init(jax.random.key(0), jax.tree.map(jnp.asarray, x)))
    return jax.tree.map(lambda p: rng.standard_normal(p.shape).astype(p.dtype), like)


@functools.cache
def moved():
    """For each row of the table, which examples' values another example 2 has moved: (batch,).

    Gradients follow: what a row's value does not depend on, its derivatives don't either.
    """
    rng = np.random.default_rng(1)
    params = {name: drawn(*row, rng) for name, row in TABLE.items() if isinstance(row[0], hg.Layer)}

    def of_examples(name, params, inputs):
        """A number for each example, from its outputs."""
        what = TABLE[name][0]
        if isinstance(what, hg.Loss):
            return what.forward(*inputs)[0]
        y, _ = what.forward(params, *inputs, jax.random.key(1, impl="unsafe_rbg"))
        y = y.Z if isinstance(y, layers.CrfScores) else y
        outputs = jax.tree.leaves(y.X if isinstance(y, layers.Projection | layers.Sequences) else y)
        return sum(jnp.sum(jnp.sin(a + 0.1).reshape(5, -1), axis=1) for a in outputs)

    @jax.jit
    def of_rows(given):
        return {name: of_examples(name, *of_row) for name, of_row in given.items()}

    moved, names = {}, list(TABLE)
    for start in range(0, len(names), 12):  # one program of all rows takes XLA half again as long
        some = names[start : start + 12]
        one = of_rows({name: (params.get(name), TABLE[name][1:]) for name in some})
        two = of_rows({name: (params.get(name), tuple(map(with_another, TABLE[name][1:]))) for name in some})
        moved |= {name: (np.abs(one[name] - two[name]) > 1e-12) | np.isnan(two[name]) for name in some}
    return moved


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.xdist_group("coupling")
def test_it_couples_where_it_says_so(name):
    others = np.delete(moved()[name], 2)
    assert moved()[name][2], "the other example is no other to this layer"
    assert (TABLE[name][0].couples is not None) == others.any()


# What a coupling leaves of the factors


THROUGH = hg.chain(a=LINEAR, b=layers.batch_norm(), c=LINEAR)
DEEP = hg.chain(first=LINEAR, block=hg.chain(hg.residual(THROUGH), hg.tanh()), last=hg.linear(3))
BALANCED = (layers.begin_auxiliary(), layers.carry_auxiliary(experts(balance=True, counts="batch")))
MODELS = {
    "deep inside": (DEEP, ROWS, LABELS, LOSS, "block.0.c.W block.0.c.b last.W last.b"),
    "twice": (hg.chain(MEETING, LINEAR, MEETING, LINEAR), ROWS, LABELS, LOSS, "3.W 3.b"),
    "between tied ends": (layers.tied_embedding(6, 4, THROUGH), IDS, IDS, LOSS, "body.c.W body.c.b"),
    "beside": (hg.residual(LINEAR, MEETING), ROWS, LABELS, LOSS, "inside.W inside.b"),
    "repeated": (hg.chain(hg.repeat(THROUGH, 2), LINEAR), ROWS, LABELS, LOSS, "1.W 1.b"),
    "f of a reversible block": (layers.reversible(HALF_MEETING, HALF), ROWS, LABELS, LOSS, "g.W g.b"),
    "g of one, saved": (layers.reversible(HALF, HALF_MEETING, residuals="save"), ROWS, LABELS, LOSS, ""),
    "a reversible sequence": (
        hg.chain(layers.reversible_sequence(HALF, HALF_MEETING, 2, gradients="factors"), LINEAR),
        ROWS,
        LABELS,
        LOSS,
        "1.W 1.b",
    ),
    "a stack of sequences": (
        layers.stacked(MEETING, hg.linear(2), layers.rnn(3)),
        STEPS,
        IDS,
        LOSS,
        "1.W 1.b 2.W 2.U 2.b",
    ),
    "an expert": (experts(THROUGH), ROWS, LABELS, LOSS, "gate.W experts.c.W experts.c.b"),
    "counts of the batch": (
        hg.chain(LINEAR, *BALANCED, layers.carry_auxiliary(hg.linear(3))),
        ROWS,
        LABELS,
        layers.add_auxiliary(LOSS, 0.1),
        "3.W 3.b",
    ),
    "the loss": (hg.chain(LINEAR, hg.tanh()), ROWS, OTHERS, layers.info_nce(), ""),
}


@functools.cache
def found():
    """The factors of each model, and the Jacobian of its losses."""

    def both(model, x, target, loss, _):
        jacobian = jax.jacrev(lambda params: loss.forward(model.forward(params, x)[0], target)[0])
        run = jax.jit(lambda params: (hg.value_and_factors(model, loss)(params, x, target)[1], jacobian(params)))
        return run(drawn(model, x, RNG))

    return {name: both(*row) for name, row in MODELS.items()}


def named(tree):
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda node: isinstance(node, hg.factors.Factor))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.xdist_group("coupling")
def test_behind_a_coupling_factors_are_right(name):
    """Each row of them is the slope of that example's loss; of the others the sum alone is right."""
    factors, jacobian = map(named, found()[name])
    apart = [path for path, factor in factors.items() if not isinstance(factor, Coupled)]
    assert apart == MODELS[name][-1].split()
    for path, factor in factors.items():
        np.testing.assert_allclose(factor.sum(), jacobian[path].sum(0), rtol=0, atol=1e-12)
        if path in apart:
            np.testing.assert_allclose(hg.per_example_grads(factor), jacobian[path], rtol=0, atol=1e-12)


def test_before_a_coupling_rows_of_factors_are_no_gradients():
    """Or the refusal would be for nothing."""
    factors, jacobian = map(named, found()["deep inside"])
    rows = factors["first.W"].factor.per_example()
    assert np.abs(rows - jacobian["first.W"]).max() > 0.01


def by_hand(one, two):
    """A user's layer: two layers one after the other, of which nothing is said."""

    def forward(params, x, key=None):
        h, kept = one.forward(params[0], x)
        y, kept_too = two.forward(params[1], h)
        return y, (kept, kept_too)

    def backward(kept, dy):
        dh, dparams_too = two.backward(kept[1], dy)
        dx, dparams = one.backward(kept[0], dh)
        return dx, (dparams, dparams_too)

    return hg.Layer(lambda key, x: (one.init(key, x), two.init(key, x)), forward, backward)


def centered():
    return lambda X: (X - jnp.mean(X, 0, keepdims=True), ()), lambda _, dY: (dY - jnp.mean(dY, 0, keepdims=True),)


@pytest.mark.parametrize(
    ("layer", "apart"),
    [
        (by_hand(LINEAR, layers.batch_norm()), "3.W 3.b"),
        (hg.residual(by_hand(LINEAR, layers.batch_norm())), "3.W 3.b"),
        (hg.Layer(*layers.batch_norm()[:3]), "3.W 3.b"),
        (from_rule(hg.Rule(*centered()), couples="centered couples the examples of a batch"), "2.W 2.b 3.W 3.b"),
        (hg.Layer(*LINEAR[:3], couples="my_layer couples the examples of a batch"), "3.W 3.b"),
    ],
)
def test_layers_of_users(layer, apart):
    """One that wraps a layer that couples is held for coupling throughout; one that says so of itself as well."""
    after = LINEAR if len(apart) > 7 else hg.tanh()
    model = hg.chain(LINEAR, layer, after, hg.linear(3))
    params = jax.eval_shape(model.init, jax.random.key(0), ROWS)
    _, factors = jax.eval_shape(hg.value_and_factors(model, LOSS), params, ROWS, LABELS)
    assert [path for path, factor in named(factors).items() if not isinstance(factor, Coupled)] == apart.split()


WORDS = "batch_norm couples the examples of a batch (layer_norm, group_norm and batch_norm_inference do not)"


def test_refusals_name_the_parameter_and_the_coupling():
    factors, _ = found()["deep inside"]
    coupling = f"in layer block.0.inside.b: {WORDS}"
    of_fold = "{}: block.0.a.W must have a gradient of each example, but " + coupling
    of_factor = coupling + ": of a parameter in or before it, only the unweighted sum is a gradient"
    calls = {
        of_fold.format("sq_norms"): lambda: hg.sq_norms(factors),
        of_fold.format("gram"): lambda: hg.gram(factors),
        of_fold.format("variance"): lambda: hg.variance(factors),
        of_fold.format("second_moment"): lambda: hg.second_moment(factors),
        of_fold.format("noise_scale"): lambda: hg.noise_scale(factors),
        of_fold.format("per_example_grads"): lambda: hg.per_example_grads(factors),
        of_fold.format("kfac_factors"): lambda: hg.kfac_factors(factors),
        of_fold.format("costs"): lambda: hg.costs(factors),
        of_factor: lambda: hg.materialize(factors, np.ones(5)),
    }
    for message, call in calls.items():
        with pytest.raises(hg.InputError) as raised:
            call()
        assert str(raised.value) == message
    for fold in (hg.sq_norms, hg.gram, hg.variance, hg.second_moment, hg.noise_scale, hg.kfac_factors, hg.costs):
        fold(factors["last"])
    info = "info_nce couples the examples of a batch (a loss of each example alone does not)"
    with pytest.raises(
        hg.InputError, match=r"^sq_norms: 0\.W must have a gradient of each example, but info_nce couples"
    ):
        hg.sq_norms(found()["the loss"][0])
    assert layers.add_auxiliary(layers.info_nce(), 0.1).couples == info


def test_projections_stay_coupled():
    factors, jacobian = found()["deep inside"]
    P = RNG.standard_normal((4, 2))
    projected = hg.project(factors, {"first.W": P})["first"].W
    np.testing.assert_allclose(projected.sum(), P.T @ jacobian["first"].W.sum(0), rtol=0, atol=1e-12)
    with pytest.raises(hg.InputError, match="couples"):
        hg.sq_norms(projected)
