"""A published state: all of it or an error that lists what doesn't fit; other names, tied heads, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_models import MODELS, check_same, made

import handgrad as hg
from handgrad.models import GPT2_STATE, from_state, to_state

# What published states hold besides: names as their authors write them.
BUFFERS = {
    "gpt2": {f"h.{i}.attn.{name}": np.ones(1, np.uint8) for i in range(2) for name in ("bias", "masked_bias")},
    "llama": {"model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(1), "model.rotary_emb.inv_freq": np.ones(1)},
    "resnet": {
        f"{norm}.{name}": np.ones(2)
        for norm in ("bn1", "layer2.0.downsample.1", "layer2.1.bn2")
        for name in ("running_mean", "running_var", "num_batches_tracked")
    },
    "qwen": {},
    "lenet5": {},
    "lstm": {},
}
every_model = pytest.mark.parametrize("name", MODELS)


def loaded(name, state, **options):
    return from_state(MODELS[name][1], made(name)[0], state, **options)


def what_is_wrong(name, state, **options):
    with pytest.raises(hg.InputError) as error:
        loaded(name, state, **options)
    said = str(error.value)
    assert said.startswith("from_state: the state must hold the model's parameters and nothing else, got ")
    return said.partition(", got ")[2]


@every_model
def test_names_of_a_model_around_it(name):
    """Buffers are ignored, and prefixes that all names have, or all but the head's, or none where some are usual."""
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
    besides = ["h.2.attn.bias", "h.2.ln_1.bias", "layers.0.mlp.up_proj.bias", "bn3.running_mean", "x"]
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
        "h.1.attn.c_attn.weight must have shape (4, 12), got float32 (4, 11), "
        "h.0.ln_1.bias must have a floating-point dtype, got int64 (4,), "
        "h.0.ln_2.bias must have shape (4,), got str, "
        "h.0.mlp.c_fc.weight must have shape (4, 16), got float32 (16, 4), "
        "lm_head.weight must be equal to wte.weight, which it is tied to; "
        "two entries for one parameter, wpe.weight and transformer.wpe.weight"
    )


def test_a_kernel_of_another_shape():
    """Its published axes are in another order."""
    wrong = made("resnet")[2] | {"layer2.1.conv1.weight": np.zeros((4, 4, 1, 3))}
    said = "1 entry of another kind, layer2.1.conv1.weight must have shape (4, 4, 3, 3), got float64 (4, 4, 1, 3)"
    assert what_is_wrong("resnet", wrong) == said


def test_a_table_without_a_parameter():
    with pytest.raises(hg.InputError, match=r"^from_state: the table must have every parameter, got none for body"):
        from_state({}, *made("gpt2")[::2])


def test_a_deeper_models_state():
    """Long lists are cut, with something of every kind and the count of the rest."""
    *_, state = made("llama")
    deeper = {f"model.layers.{i}.mlp.{part}_proj.weight": np.ones(1) for i in range(2, 9) for part in ("up", "down")}
    said = what_is_wrong("llama", state | deeper | dict.fromkeys(["a", "b", "c", "model.norm.bias"], np.ones(1)))
    assert said.startswith("18 entries that no parameter takes, model.layers.2.mlp.up_proj.weight, ")
    assert all(f"{key}, " in said for key in ("model.layers.2.mlp.down_proj.weight", "a", "c", "model.norm.bias"))
    assert said.endswith(" and 2 more (strict=False allows it)")


def test_not_strict():
    """Extra entries are ignored, and what has no entry stays: a whole parameter, one block, three thirds."""
    like, _, state = made("gpt2")
    gone = ("ln_f.weight", "h.1.ln_1.bias", "h.0.attn.c_attn.weight")
    some = {key: array for key, array in state.items() if key not in gone} | {"h.7.ln_1.bias": np.ones(1)}
    old = jax.tree.map(lambda leaf: np.full(leaf.shape, 7, leaf.dtype), like)
    found = to_state(GPT2_STATE, from_state(GPT2_STATE, old, some, strict=False))
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], np.full_like(array, 7) if key in gone else array)
    with pytest.raises(hg.InputError) as error:
        loaded("gpt2", some, strict=False)  # a shape has no value to keep
    said = str(error.value)
    assert "ln_f.weight (body.norm.gamma)" in said
    assert "h.7" not in said
    assert (
        "strict=False leaves as in `like` what has no entry, so `like` must hold arrays there, got shapes for" in said
    )
    with pytest.raises(hg.InputError, match=r"wpe.weight must have shape \(6, 4\)"):
        from_state(GPT2_STATE, old, some | {"wpe.weight": np.ones((4, 6))}, strict=False)


def test_tied_heads():
    _, params, state = made("gpt2")
    check_same(loaded("gpt2", state | {"lm_head.weight": state["wte.weight"].copy()}), params)
    for other in (state["wte.weight"][1:], "a head"):
        assert "lm_head.weight must have shape (11, 4), got" in what_is_wrong("gpt2", state | {"lm_head.weight": other})
    renamed = {"lm_head.weight" if key == "wte.weight" else key: array for key, array in state.items()}
    check_same(loaded("gpt2", renamed), params)
    _, params, state = made("qwen")
    table = state["model.embed_tokens.weight"]
    check_same(loaded("qwen", state | {"lm_head.weight": table}), params)
    only_head = {name: array for name, array in state.items() if array is not table} | {"lm_head.weight": table}
    check_same(loaded("qwen", only_head), params)
    for name, key in (("llama", "lm_head.weight"), ("lstm", "decoder.weight")):
        _, params, state = made(name)
        found = loaded(name, {other: array for other, array in state.items() if other != key})
        check_same(found, params | {"head": params["head"]._replace(W=params["embedding"].table.T)})


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
