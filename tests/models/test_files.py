"""Published states in safetensors files: there and back, several files with an index, and files that don't fit."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from published_models import IDS, LLAMA, MODELS, check_same, made

import handgrad as hg
from handgrad import models
from handgrad.checks import path_name
from handgrad.models import GPT2_STATE, load, save

flax = pytest.importorskip("safetensors.flax")


def paths(like):
    return {path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(like)}


@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, tmp_path):
    """Under the names that the table has for these parameters, and no others."""
    like, params, state = made(name)
    table = MODELS[name][1]
    save(table, params, tmp_path / "model.safetensors")
    check_same(load(table, like, tmp_path / "model.safetensors"), params)
    weights, blocks = [table[path] for path in paths(like)], 1 if name == "qwen" else 2
    names = {weight.name.format(block=i) for weight in weights for i in range(blocks)}
    assert names | {weight.added for weight in weights if weight.added} == set(state)


@pytest.mark.parametrize("name", MODELS)
def test_every_name_of_a_table_is_used(name):
    """A Llama's kin have more parameters than it."""
    like = made(name)[0]
    everything = models.llama(dataclasses.replace(LLAMA, bias=True, qk_norm=True))
    kin = jax.eval_shape(everything.init, jax.random.key(0), IDS) if name in ("llama", "qwen") else like
    assert paths(like) | paths(kin) == set(MODELS[name][1])


@pytest.fixture
def shards(tmp_path):
    """A GPT-2 in two files, and their index."""
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
    with pytest.raises(hg.InputError, match=r"got no entry for h\.1\.attn\.c_attn\.weight .*wte\.weight \("):
        load(GPT2_STATE, like, shards / "model-00001-of-00002.safetensors")
    save(GPT2_STATE, jax.tree.map(lambda p: p + 1, params), shards / "model.safetensors")
    check_same(load(GPT2_STATE, like, shards), jax.tree.map(lambda p: p + 1, params))


def test_files_that_do_not_fit(shards):
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
