"""DeepOBS's 3C3D in PyTorch."""

from baselines.layouts import after_flatten, as_tensors, kernel
from baselines.torch_ways import eager_and_compiled, torch

F = torch.nn.functional
CONVOLUTIONS = {"conv0": 0, "conv1": 0, "conv2": 1}  # their padding
DENSE = ("fc0", "fc1", "fc2")


def max_pool(x):
    """Over 3 × 3 elements, every second one, padded at the end only where the sides are even, as "SAME" has it."""
    if x.shape[-1] % 2 == 0:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)
    return F.max_pool2d(x, 3, 2, padding=1)


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    for name, padding in CONVOLUTIONS.items():
        x = max_pool(F.relu(F.conv2d(x, params[f"{name}.weight"], params[f"{name}.bias"], padding=padding)))
    x = torch.flatten(x, 1)
    for name in DENSE:
        x = F.linear(x, params[f"{name}.weight"], params[f"{name}.bias"])
        x = x if name == "fc2" else F.relu(x)
    return F.cross_entropy(x, labels)


def ways(**sizes):
    """Value and gradient."""
    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's names and layouts."""
    params = {}
    for name in CONVOLUTIONS:
        params |= {f"{name}.weight": kernel(theirs[name].K), f"{name}.bias": theirs[name].b}
    for name in DENSE:
        params |= {f"{name}.weight": theirs[name].W.T, f"{name}.bias": theirs[name].b}
    return params | {"fc0.weight": after_flatten(theirs["fc0"].W, theirs["conv2"].K.shape[-1])}


def arguments(theirs, x, labels):
    """As tensors."""
    return as_tensors(parameters(theirs), x, labels)
