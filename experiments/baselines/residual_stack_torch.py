"""A deep stack of one residual block in PyTorch."""

from baselines.torch_ways import eager_and_compiled, tensors, torch

F = torch.nn.functional
ACTIVATIONS = {"relu": F.relu, "gelu": F.gelu}


def ways(*, activation, depth, **sizes):
    """Value and gradient."""

    def loss(params, x, target):
        for i in range(depth):
            x = x + ACTIVATIONS[activation](F.linear(x, params[f"{i}.weight"], params[f"{i}.bias"]))
        return ((x - target) ** 2).sum(-1).mean()

    return eager_and_compiled(loss)


def parameters(theirs):
    """Weights (n_out, n_in), block by block."""
    linear, params = theirs[0], {}
    for i, (W, b) in enumerate(zip(linear.W, linear.b, strict=True)):
        params |= {f"{i}.weight": W.T, f"{i}.bias": b}
    return params


def arguments(theirs, x, target):
    """As tensors."""
    return tensors(parameters(theirs), x, target)
