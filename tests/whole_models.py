"""Small whole models with a batch for each, and what their factors stand for by vmap(jax.grad)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from helpers import drawn as drawn_params

import handgrad as hg
from handgrad.models import Gpt2Config, LlamaConfig, LstmLanguageModelConfig, gpt2, lenet5, llama, lstm_language_model

RNG = np.random.default_rng(0)
IDS, LABELS = (RNG.integers(0, 7, (4, 5)) for _ in range(2))
POINTS, CLASSES = RNG.standard_normal((5, 6)), RNG.integers(0, 3, 5)
LOSS = hg.softmax_cross_entropy()
normal_params = functools.partial(drawn_params, scale=0.5)
BLOCKS = hg.repeat(hg.residual(hg.chain(hg.linear(4), hg.tanh())), 3)
LLAMA = LlamaConfig(vocabulary=7, width=4, hidden=6, blocks=2, heads=2, kv_heads=1, rotary_base=10.0)
MODELS = {
    "mlp": (hg.mlp((6, 5, 3), hg.tanh()), POINTS, CLASSES),
    "repeat": (hg.chain(hg.linear(4), BLOCKS, hg.linear(3)), POINTS, CLASSES),
    "convnet": (lenet5(), RNG.standard_normal((3, 28, 28, 1)), RNG.integers(0, 10, 3)),
    "lstm": (lstm_language_model(LstmLanguageModelConfig(7, width=3, layers=2)), IDS, LABELS),
    "gpt2": (gpt2(Gpt2Config(vocabulary=7, tokens=5, width=4, blocks=2, heads=2)), IDS, LABELS),
    "llama": (llama(LLAMA), IDS, LABELS),
}


def drawn(name):
    """A model, parameters, and its batch."""
    model, x, target = MODELS[name]
    return model, normal_params(model, x), *jax.device_put((x, target))


@functools.cache
def made(name):
    """A model's factors; what they stand for, from vmap(jax.grad): (batch, *shape) for each parameter, in NumPy; and
    its losses."""
    model, params, x, target = drawn(name)
    alone = jax.grad(hg.objective(model, LOSS))

    @jax.jit
    def run(params):
        g = jax.vmap(lambda x, target: alone(params, x[None], target[None]))(x, target)
        losses, factors = hg.value_and_factors(model, LOSS)(params, x, target)
        return factors, g, losses

    factors, g, losses = run(params)
    return factors, jax.tree.map(np.asarray, g), losses


def rows(g):
    """Each example's gradients, concatenated: (batch, parameters)."""
    concatenate = np.concatenate if all(isinstance(a, np.ndarray) for a in jax.tree.leaves(g)) else jnp.concatenate
    return concatenate([a.reshape(len(a), -1) for a in jax.tree.leaves(g)], axis=1)
