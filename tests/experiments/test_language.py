"""The studies of language models: they learn, go on where they were interrupted, and refuse what makes no sense."""

import dataclasses
import json

import char_gpt
import char_linear_attention
import char_lstm
import finetune_lora
import jax
import jax.numpy as jnp
import language
import llama_tiny
import numpy as np
import pytest
from helpers import assert_refused
from language.sampling import sampler
from language.training import is_matrix

import handgrad as hg
from handgrad.models import (
    GPT2_STATE,
    Gpt2Config,
    LinearTimeLanguageModelConfig,
    LlamaConfig,
    LstmLanguageModelConfig,
    gpt2,
    linear_time_language_model,
    llama,
    load,
    lstm_language_model,
)
from handgrad.training import read_metrics

TINY = {"tokens": 12, "batch": 8, "epochs": 3, "steps": 10, "warmup": 5, "sample": 20}
GPT = {**TINY, "layers": 2, "width": 16, "heads": 2}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"def double(x):\n    return x + x\n" * 100)
    return path


def run(study, options):
    """In the types and the rank promotion of a user's program."""
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        return study.run(options, progress=False)


def test_a_sample_goes_on_beyond_the_window():
    """Of a model that is sure of the byte after the last one of each prefix."""
    model = hg.Layer(
        lambda key, x: (), lambda params, x, key=None: (1e9 * jax.nn.one_hot(x + 1, 256), ()), lambda *_: None
    )
    options = language.Training(tokens=5, prompt="abc", sample=9)
    assert sampler(model, options)((), jax.random.key(0)) == b"abcdefghijkl"


def test_weights_alone_decay():
    ids = jax.ShapeDtypeStruct((1, 4), np.uint8)
    models = {
        gpt2(Gpt2Config(256, 4, 8, 2, 2)): "W",
        gpt2(Gpt2Config(256, 4, 8, 2, 2, lora_rank=1)): "W A B",
        llama(LlamaConfig(256, 8, 8, 2, 2, 1)): "W",
        lstm_language_model(LstmLanguageModelConfig(256, 8)): "W U",
        linear_time_language_model(LinearTimeLanguageModelConfig(256, 8, heads=2)): "W K",
        linear_time_language_model(LinearTimeLanguageModelConfig(256, 8, mixer="mamba")): "W K",
    }
    for model, names in models.items():
        mask = is_matrix(jax.eval_shape(model.init, jax.random.key(0), ids))
        masked = {path[-1].name for path, decays in jax.tree.leaves_with_path(mask) if decays}
        assert masked == set(names.split())


@pytest.mark.slow
def test_char_gpt_by_hand_in_one_go_and_in_two(text, tmp_path):
    options = char_gpt.CharGpt(text=text, **GPT, out=tmp_path / "whole")
    figures = run(char_gpt, options)
    lines = read_metrics(tmp_path / "whole")
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[-1]["held_out_loss"] < lines[0]["held_out_loss"] < np.log(256)
    assert figures["nats per byte"] == pytest.approx(lines[-1]["held_out_loss"], rel=1e-6)
    assert len((tmp_path / "whole/sample.txt").read_bytes()) == len("def ") + 20
    assert (tmp_path / "whole/curves.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "whole/figures.json").read_text())["parameters"] == figures["parameters"]

    parts = dataclasses.replace(options, minutes=1e-9, out=tmp_path / "parts")
    assert run(char_gpt, parts)["steps"] == 10
    resumed = run(char_gpt, dataclasses.replace(parts, minutes=None))
    assert read_metrics(tmp_path / "parts") == lines
    assert resumed["nats per byte"] == figures["nats per byte"]
    assert run(char_gpt, options)["nats per byte"] == figures["nats per byte"]  # complete: nothing is trained
    with pytest.raises(hg.InputError, match="holds another run: its seed is 0, this one's 1"):
        run(char_gpt, dataclasses.replace(options, seed=1))


@pytest.mark.slow
def test_finetuning_trains_adapters_alone(text, tmp_path):
    """The frozen weights stay as they were read, and the merged ones compute the same as with adapters beside them."""
    base, out = tmp_path / "base", tmp_path / "out"
    run(char_gpt, char_gpt.CharGpt(text=text, **GPT, learning_rate=0.02, out=base))
    other = tmp_path / "other.txt"
    other.write_bytes(b"let double x = x + x;;\n" * 100)
    options = finetune_lora.FinetuneLora(
        text=other, base=base, rank=2, **{**TINY, "steps": 30}, learning_rate=0.1, out=out
    )
    figures = run(finetune_lora, options)
    assert figures["nats per byte"] < figures["nats per byte before"] - 0.1

    config = Gpt2Config(256, 12, 16, 2, 2)
    ids = np.frombuffer(b"let double x", np.uint8)[None]
    like = jax.eval_shape(gpt2(config).init, jax.random.key(0), ids)
    loaded, merged = (load(GPT2_STATE, like, folder) for folder in (base, out))
    assert jnp.array_equal(loaded["embedding"].table, figures["params"]["embedding"].table)
    learned = figures["params"]["body"]["blocks"]["mlp"]["up"]
    assert jnp.array_equal(loaded["body"]["blocks"]["mlp"]["up"].W, learned.W)
    assert jnp.any(learned.B != 0)
    with jax.numpy_rank_promotion("allow"):
        adapted = gpt2(dataclasses.replace(config, lora_rank=2)).forward(figures["params"], ids)[0]
        np.testing.assert_allclose(gpt2(config).forward(merged, ids)[0], adapted, atol=1e-4)
    everything = dataclasses.replace(options, rank=None, base=base / "model.safetensors", layers=2, width=16, heads=2)
    assert run(finetune_lora, dataclasses.replace(everything, out=tmp_path / "all"))["nats per byte"] < 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "options", "sizes"),
    [
        (char_lstm, char_lstm.CharLstm, {"layers": 1, "width": 16, "learning_rate": 0.02}),
        (llama_tiny, llama_tiny.LlamaTiny, {"layers": 1, "width": 16, "hidden": 24, "heads": 2, "kv_heads": 1}),
        (
            char_linear_attention,
            char_linear_attention.CharLinearAttention,
            {"layers": 1, "width": 16, "hidden": 24, "heads": 2, "learning_rate": 0.02},
        ),
    ],
    ids=["char_lstm", "llama_tiny", "char_linear_attention"],
)
def test_the_others_learn(study, options, sizes, text, tmp_path):
    run(study, options(text=text, **TINY, **sizes, out=tmp_path / "run"))
    losses = [line["held_out_loss"] for line in read_metrics(tmp_path / "run")]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.slow
def test_by_hand_and_by_autodiff_the_curve_is_one(text, tmp_path):
    """100 steps in float32. The full size: python experiments/char_gpt.py --compare 100."""
    options = char_gpt.CharGpt(text=text, **{**GPT, "warmup": 20, "epochs": 12}, compare=100, out=tmp_path / "out")
    found = run(char_gpt, options)
    assert found["apart"] < 1e-4
    assert found["hand"][-1] < found["hand"][0] - 2
    assert not (tmp_path / "out" / "config.json").exists()


def test_bad_input(text, tmp_path):
    options = char_gpt.CharGpt(text=text, **GPT, out=tmp_path / "out")
    lora = finetune_lora.FinetuneLora(text=text, base=tmp_path / "none", **TINY, out=tmp_path / "out")
    wrong = {
        "tokens must be a positive integer, got 0": {"tokens": 0},
        "compare must be a positive integer, got 0": {"compare": 0},
        "learning_rate must be a positive number, got 0": {"learning_rate": 0},
        "minutes must be a positive number, got -1": {"minutes": -1},
        "seed must be at least 0, got -1": {"seed": -1},
        "warmup must be less than all 30 steps, got 30": {"warmup": 30},
        "prompt must have 1 to 12 bytes, got ''": {"prompt": ""},
    }
    assert_refused(
        {
            f"char_gpt: {said}": lambda of=of: char_gpt.run(dataclasses.replace(options, **of))
            for said, of in wrong.items()
        }
        | {
            "windows: the text must be longer than a window of 9999 bytes, got 3040 bytes": lambda: char_gpt.run(
                dataclasses.replace(options, tokens=9999)
            ),
            "device: must be one of this machine's, cpu, got 'abacus'": lambda: char_gpt.run(
                dataclasses.replace(options, device="abacus")
            ),
            f"finetune_lora: base must be a folder of char_gpt .* got {tmp_path}/none": lambda: finetune_lora.run(lora),
            "finetune_lora: rank must be a positive integer, got 0": lambda: finetune_lora.run(
                dataclasses.replace(lora, rank=0)
            ),
        }
    )
    assert not (tmp_path / "out" / "config.json").exists()
