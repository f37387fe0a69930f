"""Models on their published state beside PyTorch: logits, and the gradient of every array; and states of PyTorch.

Theirs are functions of the published state: another library, another layout, other names.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from in_torch import F, torch
from published_models import GPT2, LLAMA, LSTM, MODELS, QWEN, RESNET, check_same, made

import handgrad as hg
from handgrad.models import from_state, to_state


def lenet5(state, images):
    """Images (batch, height, width, 1)."""
    x = images.permute(0, 3, 1, 2)
    for name, padding in (("conv1", 2), ("conv2", 0)):
        x = torch.tanh(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding))
        x = F.avg_pool2d(x, 2)
    x = x.flatten(1)
    for name in ("fc1", "fc2"):
        x = torch.tanh(F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
    return F.linear(x, state["fc3.weight"], state["fc3.bias"])


def resnet(state, images):
    """Images (batch, height, width, features), batch norm with the batch's statistics."""

    def norm(x, name):
        return F.batch_norm(x, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    x = F.relu(norm(F.conv2d(images.permute(0, 3, 1, 2), state["conv1.weight"], padding=1), "bn1"))
    for i, count in enumerate(RESNET.blocks, start=1):
        for j in range(count):
            name, strides = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
            h = F.conv2d(x, state[f"{name}.conv1.weight"], stride=strides, padding=1)
            h = F.conv2d(F.relu(norm(h, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
            if f"{name}.downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=strides)
                x = norm(x, f"{name}.downsample.1")
            x = F.relu(norm(h, f"{name}.bn2") + x)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def lstm_language_model(state, ids):
    x = F.embedding(ids, state["encoder.weight"])
    rnn = torch.nn.LSTM(x.shape[-1], x.shape[-1], LSTM.layers, batch_first=True, dtype=x.dtype)
    weights = {name.removeprefix("rnn."): value for name, value in state.items() if name.startswith("rnn.")}
    h, _ = torch.func.functional_call(rnn, weights, (x,))
    return h @ state["decoder.weight"].T + state["decoder.bias"]


def gpt2(state, ids):
    eps = GPT2.eps
    x = F.embedding(ids, state["wte.weight"]) + state["wpe.weight"][: ids.shape[1]]
    width = x.shape[-1]
    for i in range(GPT2.blocks):
        p = {name.removeprefix(f"h.{i}."): value for name, value in state.items() if name.startswith(f"h.{i}.")}
        h = F.layer_norm(x, (width,), p["ln_1.weight"], p["ln_1.bias"], eps)
        q, k, v = (h @ p["attn.c_attn.weight"] + p["attn.c_attn.bias"]).split(width, dim=-1)
        q, k, v = (t.unflatten(-1, (GPT2.heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + mixed @ p["attn.c_proj.weight"] + p["attn.c_proj.bias"]
        h = F.layer_norm(x, (width,), p["ln_2.weight"], p["ln_2.bias"], eps)
        h = F.gelu(h @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"], approximate="tanh")
        x = x + h @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"]
    return F.layer_norm(x, (width,), state["ln_f.weight"], state["ln_f.bias"], eps) @ state["wte.weight"].T


def llama(state, ids, config=LLAMA):
    """And its kin: biases, norms of queries and keys, partial rotation, a window, a tied head."""
    heads, kv_heads = config.heads, config.kv_heads
    x = F.embedding(ids, state["model.embed_tokens.weight"])
    size = config.head_size or x.shape[-1] // heads
    turning = config.rotary_features or size
    rates = config.rotary_base ** (-torch.arange(0, turning, 2, dtype=x.dtype) / turning)
    if config.rotary_scaling:  # the first pair has turned 16 / 2π = 2.5 times in 16 tokens: between 1 and 4
        assert turning == 2
        smooth = (16 / (2 * math.pi) - 1) / 3
        rates = (1 - smooth) * rates / 8 + smooth * rates
    angles = torch.arange(ids.shape[1], dtype=x.dtype)[:, None] * rates

    def norm(x, weight):
        return x if weight is None else F.rms_norm(x, (x.shape[-1],), weight, config.eps)

    def rotated(t):
        t, others = t[..., :turning], t[..., turning:]
        one, two = t.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([one * cos - two * sin, two * cos + one * sin, others], -1)

    for i in range(config.blocks):
        start = f"model.layers.{i}."
        p = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        h = norm(x, p["input_layernorm.weight"])
        q, k, v = (
            F.linear(h, p[f"self_attn.{name}_proj.weight"], p.get(f"self_attn.{name}_proj.bias"))
            .unflatten(-1, (n, size))
            .transpose(1, 2)
            for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        q, k = (rotated(norm(t, p.get(f"self_attn.{name}_norm.weight"))) for name, t in (("q", q), ("k", k)))
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(size)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if config.window:
            allowed = allowed.triu(1 - config.window)
        mixed = scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v
        x = x + mixed.transpose(1, 2).flatten(2) @ p["self_attn.o_proj.weight"].T
        h = norm(x, p["post_attention_layernorm.weight"])
        h = F.silu(h @ p["mlp.gate_proj.weight"].T) * (h @ p["mlp.up_proj.weight"].T)
        x = x + h @ p["mlp.down_proj.weight"].T
    head = state.get("lm_head.weight", state["model.embed_tokens.weight"])
    return norm(x, state["model.norm.weight"]) @ head.T


THEIRS = {"lenet5": lenet5, "resnet": resnet, "lstm": lstm_language_model, "gpt2": gpt2, "llama": llama}
THEIRS["qwen"] = functools.partial(llama, config=QWEN)


@pytest.mark.parametrize("name", MODELS)
def test_torch_on_the_published_state(name):
    model, table, x, labels = MODELS[name]
    _, params, state = made(name, np.float64)
    run = jax.jit(hg.value_and_grad(model, hg.softmax_cross_entropy(), has_aux=True))
    (_, logits), grads = run(params, x, labels)
    state = {key: torch.tensor(array, requires_grad=True) for key, array in state.items()}
    expected = THEIRS[name](state, torch.tensor(x))
    cost = F.cross_entropy(expected.flatten(0, -2), torch.tensor(labels).flatten(), reduction="sum")
    (cost / len(x)).backward()
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    ours = to_state(table, grads)
    for key, array in state.items():
        # Two biases that are added have one gradient; ours is in the first.
        gradient, theirs = ours[key.replace("bias_hh", "bias_ih")], array.grad.numpy()
        np.testing.assert_allclose(gradient, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max(), err_msg=key)


def test_a_state_dict_of_torch():
    """bfloat16, views with gaps and parameters that require a gradient; what is read doesn't change with it."""
    like, params, state = made("llama")
    tensors = {key: torch.tensor(np.repeat(array, 2, axis=-1))[..., ::2] for key, array in state.items()}
    tensors["model.norm.weight"] = torch.nn.Parameter(tensors["model.norm.weight"])
    table = MODELS["llama"][1]
    found = from_state(table, like, tensors)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.add_(1)
    check_same(found, params)
    found = from_state(table, like, {key: torch.tensor(array).bfloat16() for key, array in state.items()})
    check_same(found, jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(p.dtype), params))
    said = r"model\.norm\.weight must have a floating-point dtype, got torch\.int8 \(8,\)"
    with pytest.raises(hg.InputError, match=said):
        from_state(table, like, tensors | {"model.norm.weight": torch.ones(8, dtype=torch.int8)})
