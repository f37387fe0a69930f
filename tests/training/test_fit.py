"""Epochs: every example once, the same bits for the same key, and an end for every way a run can go wrong."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_refused, assert_same

import handgrad as hg
from handgrad.training import (
    EarlyStopping,
    GradientError,
    Interrupted,
    NotFiniteError,
    batches,
    evaluation,
    fit,
    init_state,
    make_mesh,
    train_step,
)
from handgrad.training.batches import order_of

MODEL, LOSS, SGD = hg.mlp((3, 5, 2), hg.tanh()), hg.squared_error(), optax.sgd(0.05)
X, Y = (np.random.default_rng(seed).standard_normal((10, n)) for seed, n in ((0, 3), (1, 2)))
PARAMS = jax.jit(MODEL.init)(jax.random.key(0), X)
KEY = jax.random.key(3)


def run(epochs=1, state=None, data=(X, Y), batch_size=4, model=MODEL, **options):
    state = state or init_state(PARAMS, SGD, KEY)
    size = {"batch_size": batch_size} if isinstance(data, tuple) else {}
    return list(fit(model, LOSS, SGD, state, data, epochs=epochs, **size, **options))


def test_an_epoch_visits_every_example_once():
    """The last batch, of two examples, is their mean; the same batches from an iterable give the same bits; and so do
    weights of one. The loss is the mean over the examples."""
    order = np.asarray(order_of(KEY, 0, 10))
    batches = [(X[part], Y[part]) for part in (order[:4], order[4:8], order[8:])]

    @jax.jit
    def by_autodiff(params, x, y):
        value, grads = jax.value_and_grad(hg.objective(MODEL, LOSS))(params, x, y)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads), value

    params, total = PARAMS, 0.0
    for x, y in batches:
        params, value = by_autodiff(params, x, y)
        total += len(x) * float(value)
    for data in ((X, Y), batches, (X, Y, np.ones(10))):
        ((state, metrics),) = run(data=data)
        assert_same(state.params, params, 1e-11)
        np.testing.assert_allclose(metrics.pop("loss"), total / 10, rtol=1e-12)
        assert metrics == {"epoch": 1, "step": 3}


def test_two_epochs_and_two_more_are_four(capsys):
    four = run(4, progress=True)
    assert "epoch 4/4" in capsys.readouterr().out
    two = run(2)
    last = run(2, state=two[-1][0])
    assert [metrics for _, metrics in two + last] == [metrics for _, metrics in four]
    assert jax.tree.all(jax.tree.map(np.array_equal, last[-1][0].params, four[-1][0].params))
    assert four[-1][1]["loss"] < four[0][1]["loss"]
    given, _ = run(4, state=init_state(PARAMS, SGD), key=KEY)[-1]
    assert jax.tree.all(jax.tree.map(np.array_equal, given.params, four[-1][0].params))
    other, _ = run(4, state=init_state(PARAMS, SGD, jax.random.key(4)))[-1]
    assert not np.array_equal(jax.tree.leaves(other.params)[0], jax.tree.leaves(last[-1][0].params)[0])


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "streamed"])
def test_a_value_that_is_not_finite(in_memory):
    """Stopped before that step, with the last good state; or left out, and counted."""
    target = Y.copy()
    target[7] = np.inf
    order = np.asarray(order_of(KEY, 0, 10))
    batches = [(X[part], target[part]) for part in (order[:4], order[4:8], order[8:])]
    data = (X, target) if in_memory else batches
    bad = next(i for i, (_, y) in enumerate(batches) if np.isinf(y).any())
    with pytest.raises(NotFiniteError, match=rf"fit: the objective is inf in step {bad + 1} \(epoch 1\)") as caught:
        run(data=data)
    assert caught.value.state.step == bad
    ((state, metrics),) = run(data=data, nonfinite="skip")
    assert metrics["skipped"] == 1
    assert state.step == 3
    (expected, _), *_ = run(data=[batch for i, batch in enumerate(batches) if i != bad])
    assert_same(state.params, expected.params, 1e-12)


def test_a_label_out_of_range():
    """Its loss is NaN by the rule, and not that of another class."""
    state = init_state(hg.LinearParams(jnp.zeros((3, 2)), jnp.zeros(2)), SGD, KEY)
    epochs = fit(hg.linear(2), hg.softmax_cross_entropy(), SGD, state, (X, np.arange(10) % 3), batch_size=10, epochs=1)
    with pytest.raises(NotFiniteError, match=r"in step 1 .* a label out of range"):
        next(epochs)


def test_early_stopping_and_callbacks():
    """Two epochs after the best one; a callback's True."""
    values = iter([3.0, 2.0, float("nan"), 2.5, 1.0])
    stopped = run(9, evaluate=lambda params: {"test_loss": next(values)}, early_stopping=EarlyStopping("test_loss", 2))
    assert len(stopped) == 4
    seen = []
    assert len(run(9, callbacks=[lambda state, metrics: seen.append(metrics) or metrics["epoch"] == 2])) == 2
    assert [metrics["epoch"] for metrics in seen] == [1, 2]


def test_evaluation_is_the_mean_over_all_examples():
    """Whatever the size of its batches."""
    far = {"far": lambda prediction, target: jnp.max(jnp.abs(prediction - target), axis=-1)}
    found = evaluation(MODEL, LOSS, {"test": (X, Y)}, far, batch_size=4)(PARAMS)

    @jax.jit
    def expected(params):
        prediction, _ = MODEL.forward(params, X)
        of_example = {"test_loss": LOSS.forward(prediction, Y)[0], "test_far": far["far"](prediction, Y)}
        return {name: jnp.mean(values) for name, values in of_example.items()}

    assert_same(jax.tree.map(np.asarray, found), expected(PARAMS), 1e-12)


def test_a_gradient_that_goes_wrong_while_it_trains():
    """A relu whose backward pass passes everything: right until an input is negative."""
    wrong = hg.relu()._replace(backward=lambda residuals, dy: (dy, ()))
    model = hg.chain(hg.linear(4), wrong, hg.linear(2))
    state = init_state(jax.jit(model.init)(KEY, X), SGD, KEY)
    with pytest.raises(GradientError, match="fit: the gradient differs from autodiff's in step 1") as caught:
        run(model=model, state=state, check_every=2, batch_size=10)
    assert not caught.value.report.ok


def test_a_gradient_is_checked_at_every_nth_step():
    """Of the steps of all epochs, on the batch that is taken next; from arrays and from an iterable."""
    taken = []

    def inspect(state, batch):
        taken.append((int(state.step), batch.x.shape))

    plan = batches.Plan(train_step(MODEL, LOSS, SGD), stops=True, inspect=inspect, every=2)
    for source in (batches.InMemory(plan, (X, Y), 4), batches.Streamed(plan, [(X[:4], Y[:4])] * 3)):
        state = init_state(PARAMS, SGD, KEY)
        for epoch in range(2):
            *_, last = source.epoch(state, epoch, 0)
            state = last.state
    assert taken == [(0, (4, 3)), (2, (4, 3)), (4, (4, 3))] * 2


def test_a_signal_ends_it_between_two_steps():
    def callback(state, metrics):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="fit: interrupted by SIGTERM after step 3, not saved") as caught:
        run(9, callbacks=[callback])
    assert caught.value.status == 143


def test_evaluation_refuses_what_it_would_average_wrongly():
    def found(data, **metrics):
        return evaluation(MODEL, LOSS, data, metrics, batch_size=4)(PARAMS)

    pair, dict_of = {"test": (X, Y)}, r"evaluation: data must be a dict of sets of data by name, \{'test': .*"
    assert_refused(
        {
            r"evaluation: metric 'mean' must return one number for each of the 4 .* got float64 \(\)": lambda: found(
                pair, mean=lambda p, t: jnp.mean(p - t)
            ),
            r"evaluation: metric 'all' must return one number .* got float64 \(4, 2\)": lambda: found(
                pair, all=lambda p, t: p - t
            ),
            dict_of + "got tuple": lambda: found((X, Y)),
            dict_of + "got list for 'test'": lambda: found({"test": [(X, Y)]}),
        }
    )


def test_bad_input():
    without_key = init_state(PARAMS, SGD)
    metric = {"evaluate": lambda params: {"cost": 0.0}, "early_stopping": EarlyStopping("test_loss", 1)}
    assert_refused(
        {
            "fit: batch_size must be at most the 10 examples, got 11": lambda: run(batch_size=11),
            "fit: batch_size must be a positive integer, got None": lambda: run(batch_size=None),
            "fit: epochs must be a positive integer, got 0": lambda: run(epochs=0),
            "fit: check_every must be a positive integer, got 0": lambda: run(check_every=0),
            "fit: early_stopping.patience must be a positive integer, got 0": lambda: run(
                early_stopping=EarlyStopping("test_loss", 0)
            ),
            "fit: nonfinite must be 'stop' or 'skip', got 'go on'": lambda: run(nonfinite="go on"),
            "fit: x and target must have the same batch, got 10 and 9 examples": lambda: run(data=(X, Y[:9])),
            "fit: state must have a key, .*": lambda: run(state=without_key),
            "fit: data must have a batch for each epoch, got none for epoch 2 \\(a generator .*": lambda: run(
                2, data=iter([(X, Y)])
            ),
            "fit: batch_size must be left out for an iterable, .* got 4": lambda: list(
                fit(MODEL, LOSS, SGD, init_state(PARAMS, SGD, KEY), [(X, Y)], epochs=1, batch_size=4)
            ),
            "fit: check_finite must be left out: .*": lambda: run(check_finite=True),
            "fit: noise_scale must be left out: .*": lambda: run(noise_scale=True),
            "fit: optimizer must be an optax transformation, .* got float": lambda: list(
                fit(MODEL, LOSS, 0.1, init_state(PARAMS, SGD, KEY), (X, Y), epochs=1, batch_size=4)
            ),
            "fit: state must be of the same optimizer, .* of EmptyState, .* got ScaleByAdamState, .*": lambda: run(
                state=init_state(PARAMS, optax.adam(0.1), KEY)
            ),
            "fit: state must be a TrainState, .* got tuple": lambda: run(state=PARAMS),
            "fit: layout must be a Layout, .* got Mesh": lambda: run(layout=make_mesh()),
            "train_step: compute_dtype must be a floating-point dtype, got 'float8'": lambda: run(
                compute_dtype="float8"
            ),
            r"fit: data must be a tuple \(x, target\) .* got a batch that is float64 \(10, 3\)": lambda: run(data=[X]),
            r"fit: data must be a tuple .* got float64 \(10, 3\)": lambda: run(data=X),
            "fit: data must be a tuple .* got a list of arrays: .*": lambda: run(data=[X, Y]),
            "fit: a batch must be no larger than the first, of 2 .* got 10": lambda: run(data=[(X[:2], Y[:2]), (X, Y)]),
            "fit: early_stopping must name one of the metrics .*'cost', got 'test_loss'": lambda: run(**metric),
            "train_step: micro_batches must divide the batch of 4, got 3": lambda: run(micro_batches=3),
            "train_step: by must be 'hand' or 'autodiff', got 'foot'": lambda: run(by="foot"),
        },
        traced=False,  # `fit` reads its state's numbers
    )
    with pytest.raises(TypeError, match=r"^fit\(\) got an unexpected keyword argument 'bacth'"):
        run(bacth=3)
