"""A multi-layer perceptron in PyTorch."""

from baselines.torch_ways import eager_and_compiled, tensors, torch

F = torch.nn.functional
ACTIVATIONS = {"sigmoid": torch.sigmoid, "relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh}


def ways(*, activation, **sizes):
    """Value and gradient."""

    def loss(params, x, labels):
        count = len(params) // 2
        for i in range(count):
            x = F.linear(x, params[f"{i}.weight"], params[f"{i}.bias"])
            x = ACTIVATIONS[activation](x) if i < count - 1 else x
        return F.cross_entropy(x, labels)

    return eager_and_compiled(loss)


def parameters(theirs):
    """nn.Linear's names; its weights are (n_out, n_in)."""
    named = {}
    for i, layer in enumerate(theirs[::2]):
        named |= {f"{i}.weight": layer.W.T, f"{i}.bias": layer.b}
    return named


def arguments(theirs, x, labels):
    """As tensors."""
    return tensors(parameters(theirs), x, labels)
