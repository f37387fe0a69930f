"""The step and the epochs: optax on hand-written gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import assert_refused, assert_same

import handgrad as hg
from handgrad.training import fit, init_state, train_step

MODEL, LOSS = hg.mlp((3, 5, 2), hg.tanh()), hg.squared_error()
X, Y = (np.random.default_rng(seed).standard_normal((10, n)) for seed, n in ((0, 3), (1, 2)))
PARAMS = jax.jit(MODEL.init)(jax.random.key(0), X)
SGD, ADAM = optax.sgd(0.05), optax.adam(0.1)


def by_optax(optimizer):
    """One step on the whole batch by autodiff."""
    value, grads = jax.value_and_grad(hg.objective(MODEL, LOSS))(PARAMS, X, Y)
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS)
    return optax.apply_updates(PARAMS, updates), value


def run(epochs=1, key=0, batch_size=3, **options):
    key = jax.random.key(key)
    state = init_state(PARAMS, SGD)
    return list(fit(MODEL, LOSS, SGD, state, (X, Y), batch_size=batch_size, epochs=epochs, key=key, **options))


def test_a_step_and_a_full_batch_epoch_are_optax_on_autodiff():
    """Whatever the order of an epoch: all ten examples are visited, each once."""

    @jax.jit
    def step_and_references():
        state, value = train_step(MODEL, LOSS, ADAM)(init_state(PARAMS, ADAM), X, Y)
        return state.step, (state.params, value), by_optax(ADAM), by_optax(SGD)[0]

    step, found, expected, whole_batch = step_and_references()
    assert step == 1
    assert_same(found, expected, rtol=1e-9)
    (state, _), *_ = run(batch_size=10)
    assert_same(state.params, whole_batch, rtol=1e-11)


def test_epochs_learn_and_report_and_the_same_key_gives_the_same_bits(capsys):
    cost = jax.jit(lambda params: hg.objective(MODEL, LOSS)(params, X, Y))
    history = run(20, evaluate=lambda params: {"cost": cost(params)}, progress=True)
    states, metrics = zip(*history, strict=True)
    assert [m["epoch"] for m in metrics] == list(range(1, 21))
    assert metrics[-1]["cost"] < metrics[0]["cost"] / 1.5
    assert metrics[-1].keys() == {"epoch", "train_loss", "seconds", "cost"}
    assert states[-1].step == 20 * (10 // 3)
    assert "20/20" in capsys.readouterr().out
    same, other = (run(20, key=key)[-1][0] for key in (0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, states[-1], same))
    assert not jax.tree.all(jax.tree.map(np.array_equal, same, other))


def test_bad_input():
    start, key = init_state(PARAMS, SGD), jnp.zeros(2)
    assert_refused(
        {
            "fit: batch_size must be at most the 10 examples, got 11": lambda: run(batch_size=11),
            "fit: batch_size must be a positive integer, got 0": lambda: run(batch_size=0),
            "fit: epochs must be a positive integer, got 0": lambda: run(epochs=0),
            "fit: x and target must have the same batch, got 10 and 9 examples": lambda: fit(
                MODEL, LOSS, SGD, start, (X, Y[:9]), batch_size=1, epochs=1, key=key
            ),
        }
    )
