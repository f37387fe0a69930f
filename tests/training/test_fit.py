"""The step and the epochs: optax on hand-written gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import handgrad as hg
from handgrad.training import Options, fit, init_state, make_optimizer, train_step

MODEL, LOSS = hg.mlp((3, 5, 2), hg.tanh()), hg.squared_error()
X = jnp.asarray(np.random.default_rng(0).standard_normal((10, 3)))
Y = jnp.asarray(np.random.default_rng(1).standard_normal((10, 2)))
PARAMS = MODEL.init(jax.random.key(0), X)


def test_a_step_is_optax_on_autodiff():
    optimizer = optax.adam(0.1)
    state, value = jax.jit(train_step(MODEL, LOSS, optimizer))(init_state(PARAMS, optimizer), X, Y)
    reference, grads = jax.value_and_grad(hg.objective(MODEL, LOSS))(PARAMS, X, Y)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    for mine, theirs in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(optax.apply_updates(PARAMS, updates)), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9)
    np.testing.assert_allclose(value, reference, rtol=1e-12)
    assert state.step == 1


def run(epochs=4, key=0, evaluate=None, batch_size=3, progress=False):
    optimizer = optax.sgd(0.05)
    return list(
        fit(
            MODEL,
            LOSS,
            optimizer,
            init_state(PARAMS, optimizer),
            (X, Y),
            batch_size=batch_size,
            epochs=epochs,
            key=jax.random.key(key),
            evaluate=evaluate,
            progress=progress,
        )
    )


def test_epochs_learn_and_report():
    history = run(20, evaluate=lambda params: {"cost": hg.objective(MODEL, LOSS)(params, X, Y)})
    metrics = [m for _, m in history]
    assert [m["epoch"] for m in metrics] == list(range(1, 21))
    assert metrics[-1]["cost"] < metrics[0]["cost"] / 1.5
    assert metrics[-1].keys() == {"epoch", "train_loss", "seconds", "cost"}
    assert history[-1][0].step == 20 * (10 // 3)


def test_a_full_batch_epoch_is_one_gradient_step():
    """Whatever the order: all ten examples are visited, each once."""
    (state, _), *_ = run(epochs=1, batch_size=10)
    grads = jax.grad(hg.objective(MODEL, LOSS))(PARAMS, X, Y)
    for mine, theirs in zip(
        jax.tree.leaves(state.params),
        jax.tree.leaves(jax.tree.map(lambda p, g: p - 0.05 * g, PARAMS, grads)),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11)


def test_the_same_key_gives_the_same_bits():
    one, two, other = run()[-1][0], run()[-1][0], run(key=1)[-1][0]
    assert jax.tree.all(jax.tree.map(np.array_equal, one, two))
    assert not jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_progress_bar_shows_the_last_epoch(capsys):
    run(epochs=2, progress=True)
    assert "2/2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 11}, "fit: batch_size must be at most the 10 examples, got 11"),
        ({"batch_size": 0}, "fit: batch_size must be a positive integer, got 0"),
        ({"epochs": 0}, "fit: epochs must be a positive integer, got 0"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(hg.InputError) as caught:
        run(**wrong)
    assert str(caught.value) == message


def test_x_and_target_of_different_batches():
    with pytest.raises(hg.InputError, match="fit: x and target must have the same batch, got 10 and 9 examples"):
        fit(MODEL, LOSS, optax.sgd(1.0), None, (X, Y[:9]), batch_size=1, epochs=1, key=jax.random.key(0))


def test_l2_decays_weights_and_not_biases():
    """½ λ Σ w² beside the objective: its gradient, λ w, is added to the weights' gradients."""
    optimizer = make_optimizer(Options(optimizer="sgd", learning_rate=0.5, l2=0.1))
    state, _ = train_step(MODEL, LOSS, optimizer)(init_state(PARAMS, optimizer), X, Y)
    grads = jax.grad(hg.objective(MODEL, LOSS))(PARAMS, X, Y)
    np.testing.assert_allclose(state.params[0].W, PARAMS[0].W - 0.5 * (grads[0].W + 0.1 * PARAMS[0].W), rtol=1e-10)
    np.testing.assert_allclose(state.params[0].b, PARAMS[0].b - 0.5 * grads[0].b, rtol=1e-10)
