"""Small whole models with a batch for each, and what their factors stand for by vmap(jax.grad)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import handgrad as hg
from handgrad.models import Gpt2Config, LlamaConfig, LstmLanguageModelConfig

RNG = np.random.default_rng(0)
IDS, LABELS = (RNG.integers(0, 7, (4, 5)) for _ in range(2))
POINTS, CLASSES = RNG.standard_normal((5, 6)), RNG.integers(0, 3, 5)
LOSS = hg.softmax_cross_entropy()
MODELS = {
    "mlp": (hg.mlp((6, 5, 3), hg.tanh()), POINTS, CLASSES),
    "repeat": (
        hg.chain(hg.linear(4), hg.repeat(hg.residual(hg.chain(hg.linear(4), hg.tanh())), 3), hg.linear(3)),
        POINTS,
        CLASSES,
    ),
    "convnet": (hg.lenet5(), RNG.standard_normal((3, 28, 28, 1)), RNG.integers(0, 10, 3)),
    "lstm": (hg.lstm_language_model(LstmLanguageModelConfig(7, width=3, layers=2)), IDS, LABELS),
    "gpt2": (hg.gpt2(Gpt2Config(vocabulary=7, tokens=5, width=4, blocks=2, heads=2)), IDS, LABELS),
    "llama": (
        hg.llama(LlamaConfig(vocabulary=7, width=4, hidden=6, blocks=2, heads=2, kv_heads=1, rotary_base=10.0)),
        IDS,
        LABELS,
    ),
}


def drawn(name):
    """A model, parameters none of which is 0 or 1, and its batch."""
    model, x, target = MODELS[name]
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(x))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape) / 2), like)
    return model, params, jnp.asarray(x), jnp.asarray(target)


@functools.cache
def made(name):
    """A model's factors and, from vmap(jax.grad), what they stand for: (batch, *shape) for each parameter."""
    model, params, x, target = drawn(name)
    alone = jax.grad(hg.objective(model, LOSS))

    @jax.jit
    def both(params):
        g = jax.vmap(lambda x, target: alone(params, x[None], target[None]))(x, target)
        return hg.value_and_factors(model, LOSS)(params, x, target)[1], g

    return both(params)


def rows(g):
    """Each example's gradients behind one another: (batch, parameters)."""
    return jnp.concatenate([a.reshape(len(a), -1) for a in jax.tree.leaves(g)], axis=1)
