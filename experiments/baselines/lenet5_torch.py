"""LeNet-5 in PyTorch."""

from baselines.layouts import after_flatten, as_tensors, kernel
from baselines.torch_ways import eager_and_compiled, torch

F = torch.nn.functional


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    x = F.avg_pool2d(torch.tanh(F.conv2d(x, params["conv1.weight"], params["conv1.bias"], padding=2)), 2)
    x = F.avg_pool2d(torch.tanh(F.conv2d(x, params["conv2.weight"], params["conv2.bias"])), 2)
    x = torch.flatten(x, 1)
    for name in ("fc1", "fc2"):
        x = torch.tanh(F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"]))
    return F.cross_entropy(F.linear(x, params["fc3.weight"], params["fc3.bias"]), labels)


def ways(**sizes):
    """Value and gradient."""
    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's names and layouts."""
    params = {}
    for name in ("conv1", "conv2"):
        params |= {f"{name}.weight": kernel(theirs[name].K), f"{name}.bias": theirs[name].b}
    for name in ("fc1", "fc2", "fc3"):
        params |= {f"{name}.weight": theirs[name].W.T, f"{name}.bias": theirs[name].b}
    return params | {"fc1.weight": after_flatten(theirs["fc1"].W, 16)}


def arguments(theirs, x, labels):
    """As tensors."""
    return as_tensors(parameters(theirs), x, labels)
