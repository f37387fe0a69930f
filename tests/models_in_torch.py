"""Models as functions of their published state, in PyTorch: another library, another layout, other names."""

import math

import pytest

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")

F = torch.nn.functional


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


def resnet(state, images, blocks):
    """Images (batch, height, width, features), batch norm with the batch's statistics."""

    def norm(x, name):
        return F.batch_norm(x, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

    x = F.relu(norm(F.conv2d(images.permute(0, 3, 1, 2), state["conv1.weight"], padding=1), "bn1"))
    for i, count in enumerate(blocks, start=1):
        for j in range(count):
            name, strides = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
            h = F.conv2d(x, state[f"{name}.conv1.weight"], stride=strides, padding=1)
            h = F.conv2d(F.relu(norm(h, f"{name}.bn1")), state[f"{name}.conv2.weight"], padding=1)
            if f"{name}.downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=strides)
                x = norm(x, f"{name}.downsample.1")
            x = F.relu(norm(h, f"{name}.bn2") + x)
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def lstm_language_model(state, ids, layers):
    x = F.embedding(ids, state["encoder.weight"])
    rnn = torch.nn.LSTM(x.shape[-1], x.shape[-1], layers, batch_first=True, dtype=x.dtype)
    weights = {name.removeprefix("rnn."): value for name, value in state.items() if name.startswith("rnn.")}
    h, _ = torch.func.functional_call(rnn, weights, (x,))
    return h @ state["decoder.weight"].T + state["decoder.bias"]


def gpt2(state, ids, blocks, heads, eps):
    x = F.embedding(ids, state["wte.weight"]) + state["wpe.weight"][: ids.shape[1]]
    width = x.shape[-1]
    for i in range(blocks):
        p = {name.removeprefix(f"h.{i}."): value for name, value in state.items() if name.startswith(f"h.{i}.")}
        h = F.layer_norm(x, (width,), p["ln_1.weight"], p["ln_1.bias"], eps)
        q, k, v = (h @ p["attn.c_attn.weight"] + p["attn.c_attn.bias"]).split(width, dim=-1)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + mixed @ p["attn.c_proj.weight"] + p["attn.c_proj.bias"]
        h = F.layer_norm(x, (width,), p["ln_2.weight"], p["ln_2.bias"], eps)
        h = F.gelu(h @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"], approximate="tanh")
        x = x + h @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"]
    return F.layer_norm(x, (width,), state["ln_f.weight"], state["ln_f.bias"], eps) @ state["wte.weight"].T


def llama(state, ids, blocks, heads, kv_heads, base, eps):
    x = F.embedding(ids, state["model.embed_tokens.weight"])
    size = x.shape[-1] // heads
    angles = torch.arange(ids.shape[1], dtype=x.dtype)[:, None] * base ** (
        -torch.arange(0, size, 2, dtype=x.dtype) / size
    )

    def norm(x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight, eps)

    def rotated(t):
        one, two = t.chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([one * cos - two * sin, two * cos + one * sin], -1)

    for i in range(blocks):
        start = f"model.layers.{i}."
        p = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
        h = norm(x, p["input_layernorm.weight"])
        q, k, v = (
            (h @ p[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (n, size)).transpose(1, 2)
            for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (rotated(k), v))
        scores = rotated(q) @ k.transpose(-1, -2) / math.sqrt(size)
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        mixed = scores.masked_fill(~allowed, -math.inf).softmax(-1) @ v
        x = x + mixed.transpose(1, 2).flatten(2) @ p["self_attn.o_proj.weight"].T
        h = norm(x, p["post_attention_layernorm.weight"])
        h = F.silu(h @ p["mlp.gate_proj.weight"].T) * (h @ p["mlp.up_proj.weight"].T)
        x = x + h @ p["mlp.down_proj.weight"].T
    return norm(x, state["model.norm.weight"]) @ state["lm_head.weight"].T
