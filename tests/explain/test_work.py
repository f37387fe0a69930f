"""Every number of a network that is worked through is the library's own, and jax.grad's."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.explain import questions, to_json, work
from handgrad.explain.places import kind_of_loss, places

WEIGHTS = (
    "-8.5948 -0.68736 3.6233 5.9732 7.2542 7.9525 8.3332 8.5408 8.6539 8.7156 "
    "8.7492 8.7675 8.7775 8.7829 8.7859 8.7875 8.7884 8.7889 8.7892 8.7893"
)


@pytest.fixture(scope="module")
def question():
    return questions.question().worked(several=True)


@pytest.fixture(scope="module")
def network():
    problem = questions.network("3,4,2", 3, "tanh", "softmax_cross_entropy")
    return problem, problem.worked(steps=2)


def test_the_questions_weights(question):
    assert " ".join(f"{step.layers[0].updated['W'].item():.5g}" for step in question.run.steps) == WEIGHTS
    assert question.run.steps[0].loss == pytest.approx((5.7 * -23.1 - 50.1) ** 2)


def test_the_questions_rates_show_the_law_of_convergence(question):
    rates, a = [run.rate for run in question.runs], 5.7
    assert len(rates) == 9
    assert rates[question.rate] == 0.007
    assert np.ptp(np.diff(np.log(rates))) < 1e-12
    arrives = question.runs[rates.index(pytest.approx(1 / (2 * a * a)))]
    assert arrives.steps[0].layers[0].updated["W"].item() == pytest.approx(50.1 / a)
    assert [run.diverged for run in question.runs] == [rate > 1 / a**2 for rate in rates]
    assert any(rate > 1 / a**2 for rate in rates)


def test_two_weights():
    worked = questions.chain().worked()
    first, last = worked.run.steps[0], worked.run.steps[-1]
    a0, w1, w2, error = 5.7, 0.8, 1.3, 2 * (5.7 * 0.8 * 1.3 - 50.1)
    assert first.layers[0].grads["W"].value.item() == pytest.approx(a0 * w2 * error)  # the question's formula
    assert first.layers[1].grads["W"].value.item() == pytest.approx(a0 * w1 * error)
    assert last.layers[1].Y.item() == pytest.approx(50.1, abs=0.1)


def test_numbers_are_those_of_value_and_grad(network):
    problem, worked = network
    model, loss, params, x, target = problem[:5]
    program = jax.jit(hg.value_and_grad(model, loss, argnums=(0, 1)))
    for step in worked.run.steps:
        value, (grads, dx) = program(params, x, target)
        assert step.loss == pytest.approx(float(value), rel=1e-14)
        for layer, mine, theirs in zip(step.layers, params, grads, strict=True):
            of_layer = zip(layer.grads.items(), jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True)
            for (name, gradient), p, g in of_layer:
                np.testing.assert_allclose(layer.params[name], p, rtol=1e-14)
                np.testing.assert_allclose(gradient.value, g, rtol=1e-13, atol=1e-16)
                np.testing.assert_allclose(layer.updated[name], p - 0.1 * g, rtol=1e-13)
        np.testing.assert_allclose(step.layers[0].dX, dx, rtol=1e-13, atol=1e-16)
        params = jax.tree.map(lambda p, g: p - 0.1 * np.asarray(g), params, grads)


def test_what_goes_from_layer_to_layer(network):
    step = network[1].run.steps[0]
    for layer, following in zip(step.layers[:-1], step.layers[1:], strict=True):
        assert np.array_equal(layer.Y, following.X)
        assert np.array_equal(layer.dY, following.dX)
    assert np.array_equal(step.layers[-1].dY, step.dprediction)


def test_sides_multiply_to_the_gradient_and_checks_agree(network):
    forms, step = network[1].layers, network[1].run.steps[0]
    assert [form.outer for form in forms] == [("W",), (), ("W",)]
    for layer in step.layers:
        for name, gradient in layer.grads.items():
            product = gradient.A.T @ gradient.Delta if name == "W" else gradient.Delta.sum(0)
            np.testing.assert_allclose(product, gradient.value, rtol=1e-13)
            np.testing.assert_allclose(gradient.checked.autodiff, gradient.value, rtol=1e-12, atol=1e-15)
            index = gradient.checked.index
            assert abs(gradient.value[index]) == np.abs(gradient.value).max()
            assert gradient.checked.difference == pytest.approx(gradient.value[index], rel=1e-7)
    assert all(g.checked is None for layer in network[1].run.steps[1].layers for g in layer.grads.values())


def embedded():
    """Named layers, a chain inside, a residual layer as one row, ids as input, tokens in between."""
    body = hg.chain(hg.linear(3), hg.layer_norm())
    model = hg.chain(table=hg.embedding(5, 3), body=body, skip=hg.residual(hg.linear(3)), head=hg.linear(4))
    x = jnp.array([[0, 1, 4], [2, 2, 3]])
    rng, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), shapes)
    return model, params, x, jnp.array([[0, 3, 1], [1, 2, 0]])


def test_a_network_of_tokens():
    model, params, x, target = embedded()
    worked = work(model, hg.softmax_cross_entropy(), params, x, target, learning_rate=0.1, steps=1)
    assert [(form.name, form.kind, form.outer) for form in worked.layers] == [
        ("table", "embedding", ()),
        ("body.1", "linear", ("W",)),
        ("body.2", "layer_norm", ()),
        ("skip", "residual", ("W",)),
        ("head", "linear", ("W",)),
    ]
    first = worked.run.steps[0].layers
    assert first[0].dX is None
    assert [equation.of for equation in worked.layers[0].backward] == ["dtable"]
    grads = jax.jit(hg.grad(model, hg.softmax_cross_entropy()))(params, x, target)
    np.testing.assert_allclose(first[2].grads["gamma"].value, grads["body"][1].gamma, rtol=1e-12)
    np.testing.assert_allclose(first[3].grads["W"].value, grads["skip"].W, rtol=1e-12)
    assert first[4].grads["W"].A.shape == (6, 3)
    data = to_json(worked)["runs"][0]["steps"][0]["layers"]
    assert data[0]["dX"] is None
    assert data[1]["X"]["shape"] == [6, 3]
    (row, column), value = (data[4]["grads"]["W"]["difference"][key] for key in ("index", "value"))
    assert value == pytest.approx(data[4]["grads"]["W"]["value"]["data"][row][column], rel=1e-6)


def test_losses_have_names_and_those_with_options_no_plain_equation():
    assert [kind_of_loss(getattr(hg, name)()) for name in questions.TARGETS] == list(questions.TARGETS)
    problem = questions.network("2,3", 2, "identity", "softmax_cross_entropy")
    plain = problem.worked(steps=1)
    smooth = problem._replace(loss=hg.softmax_cross_entropy(0.1)).worked(steps=1)
    assert plain.run.steps[0].parts.keys() == {"P", "Q"}
    assert (plain.loss.backward.text, smooth.loss.backward.text) == ("dY = (P − Q) / N", "dY = ∂(Σ_b C_b)/∂Y / N")
    assert smooth.run.steps[0].parts == {}


def test_a_layer_of_several_arrays_is_one_row():
    twice = hg.Layer(lambda key, x: (), lambda params, x, key=None: ((x, x), None), lambda kept, dy: (sum(dy), ()))
    model = hg.chain(twice, hg.branches(hg.linear(2), hg.identity()), hg.added())
    x = jnp.ones((1, 2))
    assert [place.kind for place in places(model, model.init(jax.random.key(0), x), x)] == ["chain"]


KEYS = {
    "worked": {"title", "intro", "rates", "rate", "batch", "signs", "layers", "loss", "runs"},
    "form": {"name", "kind", "forward", "backward", "params", "outer"},
    "step": {"loss", "losses", "target", "dprediction", "parts", "layers"},
    "layer": {"X", "Y", "dY", "dX", "params", "grads", "updated"},
}


def test_data(question, network):
    for worked in (question, network[1]):
        data = json.loads(json.dumps(to_json(worked), allow_nan=False))
        assert data.keys() == KEYS["worked"]
        assert all(form.keys() == KEYS["form"] for form in data["layers"])
        assert data["loss"].keys() == {"kind", "forward", "backward"}
        for run in data["runs"]:
            assert run.keys() == {"rate", "diverged", "steps"}
            for step in run["steps"]:
                assert step.keys() == KEYS["step"]
                assert all(layer.keys() == KEYS["layer"] for layer in step["layers"])
    layer = to_json(question)["runs"][question.rate]["steps"][0]["layers"][0]
    assert layer["grads"]["W"]["A"] == {"shape": [1, 1], "data": [[5.7]]}
    assert layer["grads"]["W"]["difference"]["index"] == [0, 0]
    assert layer["grads"]["W"]["autodiff"] == 0
    second = to_json(question)["runs"][0]["steps"][0]["layers"][0]["grads"]["W"]
    assert (second["autodiff"], second["difference"]) == (None, None)


def test_large_matrices_are_summarized_and_numbers_that_overflow_are_strings():
    problem = questions.network("30,3", 5, "identity", "squared_error")
    data = to_json(problem.worked(learning_rate=1e300, steps=3))
    json.dumps(data, allow_nan=False)
    run = data["runs"][0]
    W = run["steps"][0]["layers"][0]["params"]["W"]
    assert W["shape"] == [30, 3]
    assert np.shape(W["summary"]["corner"]) == (4, 3)
    assert W["summary"].keys() == {"min", "max", "mean", "corner"}
    assert run["diverged"]
    assert run["steps"][-1]["loss"] in ("nan", "inf")


LINEAR = (hg.linear(1), hg.squared_error(), hg.LinearParams(np.ones((2, 1)), np.ones(1)), np.ones((3, 2)))


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (LINEAR, {"learning_rate": -0.1}, "learning_rate must be a positive number, got -0.1"),
        (LINEAR, {"steps": 0}, "steps must be a positive integer, got 0"),
        (LINEAR, {"steps": 1001}, "steps must be at most 1,000, got 1,001"),
        ((hg.linear, *LINEAR[1:]), {}, "expected a Layer"),
        ((hg.linear(1), hg.squared_error, *LINEAR[2:]), {}, "expected a Loss"),
        ((*LINEAR[:3], (np.ones((3, 2)),)), {}, "x must be one array, got tuple"),
        (
            (*LINEAR[:2], hg.LinearParams(np.ones((600_000, 1)), np.ones(1)), np.ones((1, 600_000))),
            {},
            "the network must have at most 1,000,000 numbers in a step (parameters, inputs and outputs of its layers), "
            "got 1,200,002",
        ),
        (
            (*LINEAR[:2], hg.LinearParams(np.ones((9_999, 1)), np.ones(1)), np.ones((1, 9_999))),
            {"steps": 1000},
            "steps times learning rates must be at most 500 for a network of 20,000 numbers, got 1,000",
        ),
    ],
)
def test_what_is_refused(arguments, options, sentence):
    target = np.ones((len(jax.tree.leaves(arguments[3])[0]), 1))
    with pytest.raises(hg.InputError) as error:
        work(*arguments, target, **{"learning_rate": 0.1, "steps": 1, **options})
    assert str(error.value).startswith("explain: ")
    assert sentence in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("activation", questions.ACTIVATIONS)
def test_every_activation(activation):
    agrees(questions.network("3,2,2", 2, activation, "squared_error"))


@pytest.mark.slow
@pytest.mark.parametrize("loss", questions.TARGETS)
def test_every_loss(loss):
    agrees(questions.network("3,2", 3, "sigmoid", loss))


def agrees(problem):
    worked = problem.worked(steps=1)
    for layer in worked.run.steps[0].layers:
        for gradient in layer.grads.values():
            np.testing.assert_allclose(gradient.value, gradient.checked.autodiff, rtol=1e-12, atol=1e-15)
    assert worked.loss.forward.text.startswith("C_b = ")
    assert "(Y, Y*)" not in worked.loss.forward.text  # the general form
    assert all("∂" not in equation.text for form in worked.layers for equation in form.backward)
