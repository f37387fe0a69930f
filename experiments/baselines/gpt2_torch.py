"""GPT-2 in PyTorch: one projection for queries, keys and values, and scaled_dot_product_attention."""

import numpy as np

from baselines.torch_ways import eager_and_compiled, tensors, torch

F = torch.nn.functional


def ways(*, vocabulary, width, depth, heads, **sizes):
    """Value and gradient."""

    def norm(params, name, x):
        return F.layer_norm(x, (width,), params[f"{name}.weight"], params[f"{name}.bias"])

    def linear(params, name, x):
        return F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])

    def loss(params, ids, following):
        batch, tokens = ids.shape
        x = F.embedding(ids, params["table"]) + params["positions"][:tokens]
        for i in range(depth):
            qkv = linear(params, f"{i}.qkv", norm(params, f"{i}.norm1", x))
            q, k, v = (a.view(batch, tokens, heads, -1).transpose(1, 2) for a in qkv.split(width, -1))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + linear(params, f"{i}.out", mixed.transpose(1, 2).reshape(batch, tokens, width))
            hidden = F.gelu(linear(params, f"{i}.up", norm(params, f"{i}.norm2", x)), approximate="tanh")
            x = x + linear(params, f"{i}.down", hidden)
        logits = F.linear(norm(params, "norm", x), params["table"])
        return F.cross_entropy(logits.view(-1, vocabulary), following.reshape(-1), reduction="sum") / batch

    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's names and layouts, block by block."""
    body, blocks = theirs["body"], theirs["body"]["blocks"]
    mix, mlp = blocks["attention"]["mix"], blocks["mlp"]
    params = {"table": theirs["embedding"].table, "positions": body["positions"].table}
    params |= {"norm.weight": body["norm"].gamma, "norm.bias": body["norm"].beta}
    for i in range(len(mix.output.W)):
        for name, norm in (("norm1", blocks["attention"]["norm"]), ("norm2", mlp["norm"])):
            params |= {f"{i}.{name}.weight": norm.gamma[i], f"{i}.{name}.bias": norm.beta[i]}
        merged = (mix.query, mix.key, mix.value)
        params[f"{i}.qkv.weight"] = np.concatenate([one.W[i].T for one in merged])
        params[f"{i}.qkv.bias"] = np.concatenate([one.b[i] for one in merged])
        for name, linear in (("out", mix.output), ("up", mlp["up"]), ("down", mlp["down"])):
            params |= {f"{i}.{name}.weight": linear.W[i].T, f"{i}.{name}.bias": linear.b[i]}
    return params


def arguments(theirs, ids, following):
    """As tensors."""
    return tensors(parameters(theirs), ids, following)
