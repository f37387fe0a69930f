"""Every model with a published state, small: its table, a batch, and parameters with their state."""

import dataclasses
import functools

import jax
import numpy as np

from handgrad import models
from handgrad.models import (
    GPT2_STATE,
    LENET5_STATE,
    LLAMA_STATE,
    llama_state,
    lstm_language_model_state,
    resnet_state,
    to_state,
)
from handgrad.rules import Llama3Scaling

RNG = np.random.default_rng(0)
IDS, LABELS = (RNG.integers(0, 7, (2, 5)) for _ in range(2))
GPT2 = models.Gpt2Config(vocabulary=11, tokens=6, width=4, blocks=2, heads=2)
LLAMA = models.LlamaConfig(vocabulary=11, width=8, hidden=6, blocks=2, heads=4, kv_heads=2, rotary_base=100.0)
QWEN = dataclasses.replace(
    LLAMA,
    blocks=1,
    head_size=4,
    bias="qkv",
    qk_norm=True,
    tied=True,
    window=2,
    rotary_features=2,
    rotary_scaling=Llama3Scaling(8.0, 16),
)
RESNET = models.ResnetConfig(classes=3, widths=(2, 4), blocks=(1, 2), norm="batch")
LSTM = models.LstmLanguageModelConfig(vocabulary=7, width=3)
MODELS = {
    "gpt2": (models.gpt2(GPT2), GPT2_STATE, IDS, LABELS),
    "llama": (models.llama(LLAMA), LLAMA_STATE, IDS, LABELS),
    "qwen": (models.llama(QWEN), llama_state(QWEN), IDS, LABELS),
    "lenet5": (models.lenet5(), LENET5_STATE, RNG.standard_normal((3, 28, 28, 1)), np.array([0, 7, 2])),
    "resnet": (models.resnet(RESNET), resnet_state(RESNET), RNG.standard_normal((4, 6, 6, 3)), np.array([0, 2, 1, 1])),
    "lstm": (models.lstm_language_model(LSTM), lstm_language_model_state(LSTM), IDS, LABELS),
}


@functools.cache
def made(name, dtype=np.float32):
    """The shapes of the parameters, parameters none of which is 0 or 1, and their state."""
    model, table, x, _ = MODELS[name]
    rng = np.random.default_rng(0)
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), like)
    params = jax.tree.map(lambda leaf: np.asarray(rng.standard_normal(leaf.shape) / 2, leaf.dtype), like)
    return like, params, to_state(table, params)


def check_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
