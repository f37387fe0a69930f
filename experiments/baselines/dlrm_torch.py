"""A recommender in PyTorch."""

from baselines.torch_ways import eager_and_compiled, tensors, torch

F = torch.nn.functional


def mlp(params, name, count, x):
    """relu after all but the last."""
    for i in range(count):
        x = F.linear(x, params[f"{name}.{i}.weight"], params[f"{name}.{i}.bias"])
        x = F.relu(x) if i < count - 1 else x
    return x


def ways(*, hidden, **sizes):
    """Value and gradient."""

    def loss(params, numbers, ids, target):
        looked_up = F.embedding(ids, params["table"]).flatten(1)
        x = torch.cat([mlp(params, "bottom", 2, numbers), looked_up], 1)
        return F.binary_cross_entropy_with_logits(mlp(params, "top", len(hidden) + 1, x), target)

    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's names and layouts."""
    (bottom, embedding), top = theirs["meeting"], theirs["top"]
    params = {"table": embedding.table}
    for name, chain in (("bottom", bottom), ("top", top)):
        for i, one in enumerate(chain[::2]):
            params |= {f"{name}.{i}.weight": one.W.T, f"{name}.{i}.bias": one.b}
    return params


def arguments(theirs, x, target):
    """As tensors."""
    return tensors(parameters(theirs), *x, target)
