"""Configs as Llama's kin have published them, in what counts; and the rotations that they ask for."""

import numpy as np
import pytest
from helpers import assert_refused

from handgrad.models import LlamaConfig, published_llama
from handgrad.rules import LinearScaling, Llama3Scaling, NtkScaling, YarnScaling
from handgrad.rules.attention._speeds import rotary_speeds

SIZES = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
LLAMA_3_1 = SIZES | {
    "model_type": "llama",
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}
YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1}


def test_llama():
    scaling = Llama3Scaling(8.0, 8192, 1.0, 4.0)
    assert published_llama(LLAMA_3_1) == LlamaConfig(rotary_scaling=scaling)
    partial = {"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}, "attention_bias": True}
    config = published_llama(SIZES | partial)
    assert (config.kv_heads, config.rotary_base, config.rotary_features, config.bias) == (32, 1e6, 64, True)


def test_its_kin():
    mistral = published_llama(SIZES | {"model_type": "mistral", "sliding_window": 4096, "num_key_value_heads": 8})
    assert (mistral.window, mistral.bias, mistral.kv_heads) == (4096, False, 8)
    qwen2 = published_llama(SIZES | {"model_type": "qwen2", "sliding_window": 4096, "tie_word_embeddings": True})
    assert (qwen2.window, qwen2.bias, qwen2.tied, qwen2.qk_norm) == (None, "qkv", True, False)
    qwen3 = published_llama(SIZES | {"model_type": "qwen3", "head_dim": 64})
    assert (qwen3.head_size, qwen3.bias, qwen3.tied, qwen3.qk_norm) == (64, False, False, True)


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"rope_type": "default"}, None),
        ({"type": "linear", "factor": 4.0}, LinearScaling(4.0)),
        ({"rope_type": "dynamic", "factor": 2.0}, NtkScaling(2.0, 2048)),
        (YARN, YarnScaling(40, 4096)),
        (YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}, YarnScaling(40, 4096, attention_factor=1.0)),
        (YARN | {"truncate": False, "attention_factor": 1.2}, YarnScaling(40, 4096, 32, 1, 1.2, False)),
    ],
)
def test_scaling(scaling, expected):
    config = published_llama(SIZES | {"max_position_embeddings": 2048, "rope_scaling": scaling})
    assert config.rotary_scaling == expected


def test_refusals():
    assert_refused(
        {
            f"published_llama: {sentence}": lambda changed=changed: published_llama(SIZES | changed)
            for sentence, changed in {
                "model_type must be one of llama, mistral, qwen2, qwen3, got 'gemma'": {"model_type": "gemma"},
                "hidden_act must be 'silu', got 'gelu'": {"hidden_act": "gelu"},
                "mlp_bias must be False, got True": {"mlp_bias": True},
                "use_sliding_window must be False, got True": {"use_sliding_window": True},
                "rope_type must be linear, .*, got 'longrope'": {
                    "rope_scaling": {"rope_type": "longrope", "factor": 2.0},
                    "max_position_embeddings": 8,
                },
                "rope_scaling must have factor, got none": {"rope_scaling": {"type": "linear"}},
                "rope_scaling must have original_max_position_embeddings, got none": {
                    "rope_scaling": {"type": "yarn", "factor": 2.0}
                },
            }.items()
        }
        | {"published_llama: the config must have vocab_size, .*, got none": lambda: published_llama({})}
    )


def test_published_speeds():
    """Llama 3.1: 64 pairs, of which the first 29 keep their speed and the last 29 have an eighth of it. YaRN at 32 and
    40 times the tokens: queries and keys 1.3466 and 1.3689 times as large."""
    speeds, _ = rotary_speeds(128, 500000.0, None, 1)
    scaled, size = rotary_speeds(128, 500000.0, Llama3Scaling(8.0, 8192), 1)
    assert size == 1
    ratio = scaled / speeds
    assert (ratio == 1).tolist() == [True] * 29 + [False] * 35
    np.testing.assert_allclose(ratio[-29:], 1 / 8, rtol=1e-15)
    assert (np.diff(ratio[28:-28]) < 0).all()
    for factor, published in ((32, 1.3466), (40, 1.3689)):
        _, size = rotary_speeds(64, 150000.0, YarnScaling(factor, 4096), 1)
        assert round(size, 4) == published
    one_range, _ = rotary_speeds(2, 1e4, YarnScaling(4.0, 8, truncate=False), 1)
    assert np.isfinite(one_range).all()
