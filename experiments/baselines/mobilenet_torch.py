"""A MobileNet's blocks in PyTorch."""

from baselines.layouts import as_tensors, kernel
from baselines.torch_ways import eager_and_compiled, torch

F = torch.nn.functional


def norm_relu(params, name, x):
    """Batch norm as in training, and relu."""
    return F.relu(F.batch_norm(x, None, None, params[f"{name}.gamma"], params[f"{name}.beta"], training=True))


def ways(*, blocks, **sizes):
    """Value and gradient."""

    def loss(params, x, labels):
        # On even sides "SAME" pads a strided convolution at the end alone.
        x = norm_relu(params, "stem", F.conv2d(F.pad(x, (0, 1, 0, 1)), params["stem.weight"], None, 2))
        for i in range(blocks):
            depthwise, pointwise = params[f"depthwise{i}.weight"], params[f"pointwise{i}.weight"]
            x = norm_relu(params, f"depthwise{i}", F.conv2d(x, depthwise, None, 1, 1, 1, x.shape[1]))
            x = norm_relu(params, f"pointwise{i}", F.conv2d(x, pointwise))
        return F.cross_entropy(F.linear(x.mean((2, 3)), params["fc.weight"], params["fc.bias"]), labels)

    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's layouts."""
    params = {"fc.weight": theirs["fc"].W.T, "fc.bias": theirs["fc"].b}
    for name in theirs:
        if name not in ("mean", "fc"):
            unit = theirs[name]
            params[f"{name}.weight"] = kernel(unit["conv"].K)
            params |= {f"{name}.gamma": unit["norm"].gamma, f"{name}.beta": unit["norm"].beta}
    return params


def arguments(theirs, x, labels):
    """As tensors."""
    return as_tensors(parameters(theirs), x, labels)
