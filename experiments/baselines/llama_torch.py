"""Llama in PyTorch: scaled_dot_product_attention with grouped queries."""

from baselines.torch_ways import eager_and_compiled, tensors, torch

F = torch.nn.functional
WEIGHTS = ("q", "k", "v", "o", "gate", "up", "down")


def rotary(x, base=500000.0):
    """Both halves of each head, rotated by the position."""
    tokens, half = x.shape[2], x.shape[3] // 2
    angles = torch.arange(tokens)[:, None] * base ** (-torch.arange(half) / half)
    cos, sin = angles.cos(), angles.sin()
    one, other = x.chunk(2, -1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1)


def ways(*, vocabulary, width, depth, heads, kv_heads, **sizes):
    """Value and gradient."""

    def loss(params, ids, following):
        batch, tokens = ids.shape

        def split(x, count):
            return x.view(batch, tokens, count, -1).transpose(1, 2)

        x = F.embedding(ids, params["table"])
        for i in range(depth):
            of = {name: params[f"{i}.{name}"] for name in WEIGHTS}
            y = F.rms_norm(x, (width,), params[f"{i}.norm1"], 1e-5)
            q, k = rotary(split(F.linear(y, of["q"]), heads)), rotary(split(F.linear(y, of["k"]), kv_heads))
            v = split(F.linear(y, of["v"]), kv_heads)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = x + F.linear(mixed.transpose(1, 2).reshape(batch, tokens, width), of["o"])
            y = F.rms_norm(x, (width,), params[f"{i}.norm2"], 1e-5)
            x = x + F.linear(F.silu(F.linear(y, of["gate"])) * F.linear(y, of["up"]), of["down"])
        logits = F.linear(F.rms_norm(x, (width,), params["norm"], 1e-5), params["head"])
        return F.cross_entropy(logits.view(-1, vocabulary), following.reshape(-1), reduction="sum") / batch

    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's layouts, block by block."""
    blocks = theirs["blocks"]
    mix, mlp = blocks["attention"]["mix"], blocks["mlp"]["mix"]
    layers = (mix.query, mix.key, mix.value, mix.output, mlp.gate, mlp.up, mlp.down)
    params = {"table": theirs["embedding"].table, "norm": theirs["norm"].gamma, "head": theirs["head"].W.T}
    for i in range(len(mix.output.W)):
        params |= {f"{i}.{name}": layer.W[i].T for name, layer in zip(WEIGHTS, layers, strict=True)}
        params |= {f"{i}.norm1": blocks["attention"]["norm"].gamma[i], f"{i}.norm2": blocks["mlp"]["norm"].gamma[i]}
    return params


def arguments(theirs, ids, following):
    """As tensors."""
    return tensors(parameters(theirs), ids, following)
