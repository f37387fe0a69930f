"""Loading a state: all of it or an error that lists what doesn't fit; other names, tied heads, several files."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.models import (
    GPT2_STATE,
    LENET5_STATE,
    LLAMA_STATE,
    Gpt2Config,
    LlamaConfig,
    LstmLanguageModelConfig,
    ResnetConfig,
    from_state,
    gpt2,
    lenet5,
    llama,
    load,
    lstm_language_model,
    lstm_language_model_state,
    resnet,
    resnet_state,
    save,
    to_state,
)

IDS, IMAGES = np.zeros((1, 4), int), np.zeros((1, 6, 6, 3))
RESNET = ResnetConfig(classes=3, widths=(2, 4), blocks=(1, 2), norm="batch")
LSTM = LstmLanguageModelConfig(vocabulary=7, width=3)
MODELS = {
    "gpt2": (gpt2(Gpt2Config(vocabulary=11, tokens=6, width=4, blocks=2, heads=2)), GPT2_STATE, IDS),
    "llama": (llama(LlamaConfig(vocabulary=11, width=4, hidden=6, blocks=2, heads=2, kv_heads=1)), LLAMA_STATE, IDS),
    "lenet5": (lenet5(), LENET5_STATE, np.zeros((1, 28, 28, 1))),
    "resnet": (resnet(RESNET), resnet_state(RESNET), IMAGES),
    "lstm": (lstm_language_model(LSTM), lstm_language_model_state(LSTM), IDS),
}
# What published states hold besides: names as their authors write them.
BUFFERS = {
    "gpt2": {f"h.{i}.attn.{name}": np.ones(1, np.uint8) for i in range(2) for name in ("bias", "masked_bias")},
    "llama": {"model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(1), "model.rotary_emb.inv_freq": np.ones(1)},
    "resnet": {
        f"{norm}.{name}": np.ones(2)
        for norm in ("bn1", "layer2.0.downsample.1", "layer2.1.bn2")
        for name in ("running_mean", "running_var", "num_batches_tracked")
    },
    "lenet5": {},
    "lstm": {},
}
every_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def made(name):
    """The shapes of the parameters, parameters, and their state."""
    model, table, x = MODELS[name]
    rng = np.random.default_rng(0)
    like = jax.eval_shape(model.init, jax.random.key(0), x)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), like)
    params = jax.tree.map(lambda leaf: np.asarray(rng.standard_normal(leaf.shape), leaf.dtype), like)
    return like, params, to_state(table, params)


def loaded(name, state, **options):
    return from_state(MODELS[name][1], made(name)[0], state, **options)


def check_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def what_is_wrong(name, state, **options):
    with pytest.raises(hg.InputError) as error:
        loaded(name, state, **options)
    said = str(error.value)
    assert said.startswith("from_state: the state must hold the model's parameters and nothing else, got ")
    return said.partition(", got ")[2]


@every_model
def test_names_of_a_model_around_it(name):
    """Buffers are left aside, and prefixes that all names have, or all but the head's, or none where some are usual."""
    _, params, state = made(name)
    state = state | BUFFERS[name]
    check_same(loaded(name, state), params)
    for prefix in ("transformer.", "model.", "module._orig_mod."):
        check_same(loaded(name, {prefix + key: array for key, array in state.items()}), params)
        part = {key if key.startswith("lm_head") else prefix + key: array for key, array in state.items()}
        check_same(loaded(name, part), params)
    check_same(loaded(name, {key.removeprefix("model."): array for key, array in state.items()}), params)


@every_model
def test_each_entry_is_needed_and_none_besides(name):
    """Each left away in turn is named; so is each of a stranger's, of another block, a bias, a buffer of no block."""
    *_, state = made(name)
    tied = {"lm_head.weight", "decoder.weight"}
    for key in state.keys() - tied:
        rest = {other: array for other, array in state.items() if other != key}
        assert what_is_wrong(name, rest).startswith(f"no entry for {key} (")
    besides = ["h.2.attn.bias", "h.2.ln_1.bias", "layers.0.self_attn.q_proj.bias", "bn3.running_mean", "x"]
    said = what_is_wrong(name, state | dict.fromkeys(besides, np.ones(1)))
    assert said == f"5 entries that no parameter takes, {', '.join(besides)} (strict=False allows it)"


def test_all_that_is_wrong_in_one_sentence():
    *_, state = made("gpt2")
    wrong = state | {
        "h.0.mlp.c_fc.weight": state["h.0.mlp.c_fc.weight"].T,
        "h.1.attn.c_attn.weight": state["h.1.attn.c_attn.weight"][:, :-1],
        "h.0.ln_1.bias": np.ones(4, int),
        "h.0.ln_2.bias": "ones",
        "transformer.wpe.weight": state["wpe.weight"],
        "lm_head.weight": state["wte.weight"] + 1,
        "score.weight": np.ones(1),
    }
    del wrong["h.1.attn.c_attn.bias"]
    assert what_is_wrong("gpt2", wrong) == (
        "no entry for h.1.attn.c_attn.bias (body.blocks.attention.mix.query.b, body.blocks.attention.mix.key.b, "
        "body.blocks.attention.mix.value.b); 1 entry that no parameter takes, score.weight; 5 entries of another kind, "
        "lm_head.weight must be equal to wte.weight, which it is tied to, "
        "h.1.attn.c_attn.weight must have shape (4, 12), got float32 (4, 11), "
        "h.0.ln_1.bias must have a floating-point dtype, got int64 (4,), "
        "h.0.ln_2.bias must have shape (4,), got str, "
        "h.0.mlp.c_fc.weight must have shape (4, 16), got float32 (16, 4); "
        "two entries for one parameter, wpe.weight and transformer.wpe.weight"
    )


def test_a_deeper_models_state():
    """Long lists are cut, with something of every kind and the count of the rest."""
    *_, state = made("llama")
    deeper = {f"model.layers.{i}.mlp.{part}_proj.weight": np.ones(1) for i in range(2, 9) for part in ("up", "down")}
    said = what_is_wrong("llama", state | deeper | dict.fromkeys(["a", "b", "c", "model.norm.bias"], np.ones(1)))
    assert said.startswith("18 entries that no parameter takes, model.layers.2.mlp.up_proj.weight, ")
    assert all(f"{key}, " in said for key in ("model.layers.2.mlp.down_proj.weight", "a", "c", "model.norm.bias"))
    assert said.endswith(" and 2 more (strict=False allows it)")


def test_not_strict():
    """What is left over is left aside, and what is missing stays: a whole parameter, one block, three thirds."""
    table = GPT2_STATE
    like, _, state = made("gpt2")
    gone = ("ln_f.weight", "h.1.ln_1.bias", "h.0.attn.c_attn.weight")
    some = {key: array for key, array in state.items() if key not in gone} | {"h.7.ln_1.bias": np.ones(1)}
    old = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), like)
    found = to_state(table, from_state(table, old, some, strict=False))
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], np.full_like(array, 7) if key in gone else array)
    said = what_is_wrong("gpt2", some, strict=False)  # a shape has no value to keep
    assert "ln_f.weight (body.norm.gamma)" in said
    assert "h.7" not in said
    assert "strict" not in said
    wrong = some | {"wpe.weight": np.ones((4, 6))}
    with pytest.raises(hg.InputError, match=r"wpe.weight must have shape \(6, 4\)"):
        from_state(table, old, wrong, strict=False)


def test_tied_heads():
    *_, state = made("gpt2")
    params = made("gpt2")[1]
    check_same(loaded("gpt2", state | {"lm_head.weight": state["wte.weight"].copy()}), params)
    for other in (state["wte.weight"][1:], "a head"):
        assert "lm_head.weight must have shape (11, 4), got" in what_is_wrong("gpt2", state | {"lm_head.weight": other})
    head = state | {"lm_head.weight": state["wte.weight"]}
    del head["wte.weight"]
    check_same(loaded("gpt2", head), params)
    for name, key, table in (("llama", "lm_head.weight", "embedding"), ("lstm", "decoder.weight", "embedding")):
        _, params, state = made(name)
        found = loaded(name, {other: array for other, array in state.items() if other != key})
        check_same(found, params | {"head": params["head"]._replace(W=params[table].table.T)})


def test_dtypes():
    """Any floating-point dtype becomes that of `like`; two biases are added in the wider one."""
    for dtype in (jnp.bfloat16, np.float16, np.float64):
        _, params, state = made("lstm")
        state = {key: array.astype(dtype) for key, array in state.items()}
        state["rnn.bias_hh_l0"] = np.full(12, 1e-3, dtype)
        found = loaded("lstm", state)
        assert jax.tree.map(lambda leaf: leaf.dtype, found) == jax.tree.map(lambda leaf: leaf.dtype, params)
        expected = np.float64(state["rnn.bias_ih_l0"]) + np.float64(state["rnn.bias_hh_l0"])
        np.testing.assert_allclose(found["lstm"][0].b, expected, rtol=1e-6)
        np.testing.assert_array_equal(found["head"].W, np.float32(state["decoder.weight"]).T)


@pytest.mark.third_party
def test_a_state_dict_of_torch():
    """bfloat16, views with gaps and parameters that require a gradient; what is read doesn't change with it."""
    torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
    _, params, state = made("llama")
    tensors = {key: torch.tensor(np.repeat(array, 2, axis=-1))[..., ::2] for key, array in state.items()}
    tensors["model.norm.weight"] = torch.nn.Parameter(tensors["model.norm.weight"])
    found = loaded("llama", tensors)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.add_(1)
    check_same(found, params)
    found = loaded("llama", {key: torch.tensor(array).bfloat16() for key, array in state.items()})
    check_same(found, jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(p.dtype), params))
    wrong = tensors | {"model.norm.weight": torch.ones(4, dtype=torch.int8)}
    said = "model.norm.weight must have a floating-point dtype, got torch.int8 (4,)"
    assert said in what_is_wrong("llama", wrong)


@pytest.fixture
def shards(tmp_path):
    """A GPT-2 in two files, and their index."""
    flax = pytest.importorskip("safetensors.flax")
    *_, state = made("gpt2")
    of_files = {f"model-0000{i}-of-00002.safetensors": dict(list(state.items())[i - 1 :: 2]) for i in (1, 2)}
    for file, entries in of_files.items():
        flax.save_file({name: jnp.asarray(array) for name, array in entries.items()}, tmp_path / file)
    weight_map = {name: file for file, entries in of_files.items() for name in entries}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tmp_path


def test_several_files_with_an_index(shards):
    like, params, _ = made("gpt2")
    check_same(load(GPT2_STATE, like, shards / "model.safetensors.index.json"), params)
    check_same(load(GPT2_STATE, like, str(shards)), params)
    with pytest.raises(hg.InputError, match=r"got no entry for h\.0\.attn\.c_attn\.weight .*wpe\.weight \("):
        load(GPT2_STATE, like, shards / "model-00001-of-00002.safetensors")
    save(GPT2_STATE, jax.tree.map(lambda p: p + 1, params), shards / "model.safetensors")
    check_same(load(GPT2_STATE, like, shards), jax.tree.map(lambda p: p + 1, params))


def test_files_that_do_not_fit(shards):
    import safetensors.flax as flax

    like = made("gpt2")[0]
    index = shards / "model.safetensors.index.json"
    first, second = (shards / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))

    def said(path=index):
        with pytest.raises(hg.InputError) as error:
            load(GPT2_STATE, like, path)
        return str(error.value)

    entries = flax.load_file(second)
    name, array = entries.popitem()
    flax.save_file(entries, second)
    assert said() == f"load: {second.name} must hold what {index} says, got no {name}"
    flax.save_file(entries | {name: array} | flax.load_file(first), second)
    assert said().startswith(f"load: each entry must be in one file of {index}, got ")
    second.write_bytes(b"no tensors at all")
    assert said().startswith(f"load: {second} can't be read: ")
    second.unlink()
    assert said() == f"load: the files that {index} names must lie beside it, got none of {second.name}"
    index.write_text("{}")
    assert said() == f"load: {index} must be an index with a weight_map, got KeyError('weight_map')"
    index.unlink()
    assert said(shards).endswith("must hold model.safetensors or model.safetensors.index.json, got neither")
    with pytest.raises(FileNotFoundError):
        load(GPT2_STATE, like, shards / "model.safetensors")
