"""A run in a folder is the same run, however often it is left."""

import signal

import jax
import numpy as np
import optax
import pytest

import handgrad as hg
from handgrad.training import Checkpoints, EarlyStopping, Interrupted, Run, batches, fit, fit_run, init_state
from handgrad.training.runs import read_metrics

MODEL, LOSS, ADAM = hg.chain(hg.linear(4), hg.dropout(0.3), hg.linear(2)), hg.squared_error(), optax.adam(0.01)
X, Y = (np.random.default_rng(seed).standard_normal((10, n)) for seed, n in ((0, 3), (1, 2)))
STATE = init_state(jax.jit(MODEL.init)(jax.random.key(0), X), ADAM, jax.random.key(1))


def go(folder, epochs, run=None, **options):
    run = run or Run(folder, {})
    return fit_run(run, MODEL, LOSS, ADAM, STATE, (X, Y), epochs=epochs, batch_size=4, **options)


def same(one, two):
    return jax.tree.all(jax.tree.map(np.array_equal, one.params, two.params))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return go(tmp_path_factory.mktemp("whole"), 4)


def test_a_run_goes_on(whole, tmp_path):
    """Left after two epochs, and then complete: it is read."""
    go(tmp_path, 2)
    for _ in range(2):
        state, metrics = go(tmp_path, 4)
        assert (same(state, whole[0]), metrics) == (True, whole[1])
    assert [line["step"] for line in metrics] == [3, 6, 9, 12]


def test_an_epoch_whose_metrics_were_not_written_is_taken_again(whole, tmp_path):
    run = Run(tmp_path, {})
    with Checkpoints(run.checkpoints, every_steps=1) as checkpoints:
        options = {"batch_size": 4, "checkpoints": checkpoints}
        for _, metrics in fit(MODEL, LOSS, ADAM, STATE, (X, Y), epochs=4, **options):
            if metrics["epoch"] == 3:
                break  # or an error, such as a full disk's
            run.append(metrics)
        assert checkpoints.restore(STATE)[1].epoch == 2
    state, metrics = go(tmp_path, 4)
    assert (same(state, whole[0]), metrics) == (True, whole[1])


def test_a_run_that_is_interrupted_between_two_steps(whole, tmp_path, monkeypatch):
    def due(self, step, metrics=None):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        return False

    with monkeypatch.context() as patched:
        patched.setattr(batches, "SECONDS", 0.0)  # the host hears of each step
        patched.setattr(Checkpoints, "due", due)
        with pytest.raises(Interrupted, match=r"^fit: interrupted by SIGTERM after step 4, saved in .*/checkpoints$"):
            go(tmp_path, 4)
    assert [line["epoch"] for line in read_metrics(tmp_path)] == [1]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        position = checkpoints.restore(STATE)[1]
        assert (checkpoints.steps, position.epoch, position.batch) == ((4,), 1, 1)
    state, metrics = go(tmp_path, 4)
    assert (same(state, whole[0]), metrics) == (True, whole[1])


def test_early_stopping_is_final(tmp_path):
    """A run that has stopped doesn't go on when it is started again."""
    options = {"evaluate": lambda params: {"test_loss": 1.0}, "early_stopping": EarlyStopping("test_loss", patience=2)}
    runs = [go(tmp_path, 9, **options)[1] for _ in range(2)]
    assert runs[0] == runs[1]
    assert [line["epoch"] for line in runs[0]] == [1, 2, 3]


def test_the_best_epoch_is_kept_beside_the_latest(tmp_path):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 2.0])
    go(tmp_path, 6, best="test_loss", evaluate=lambda params: {"test_loss": next(losses)})
    with Checkpoints(Run(tmp_path, {}).checkpoints, best="test_loss") as checkpoints:
        assert checkpoints.best_step == 2 * 3
        state, position = checkpoints.restore(STATE, best=True)
    assert (int(state.step), position.epoch) == (6, 2)
