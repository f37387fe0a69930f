"""A CIFAR ResNet in PyTorch, with batch norm's statistics of the batch."""

from baselines.layouts import as_tensors, kernel
from baselines.torch_ways import eager_and_compiled, torch

F = torch.nn.functional


def norm(params, name, x):
    """As in training."""
    return F.batch_norm(x, None, None, params[f"{name}.weight"], params[f"{name}.bias"], training=True)


def block(params, name, x, stride):
    """Two convolutions and their shortcut."""
    y = F.relu(norm(params, f"{name}.bn1", F.conv2d(x, params[f"{name}.conv1.weight"], None, stride, 1)))
    y = norm(params, f"{name}.bn2", F.conv2d(y, params[f"{name}.conv2.weight"], None, 1, 1))
    if f"{name}.shortcut.weight" in params:
        x = norm(params, f"{name}.bn", F.conv2d(x, params[f"{name}.shortcut.weight"], None, stride))
    return F.relu(x + y)


def ways(*, blocks, **sizes):
    """Value and gradient."""

    def loss(params, x, labels):
        x = F.relu(norm(params, "bn", F.conv2d(x, params["conv.weight"], None, 1, 1)))
        for i, count in enumerate(blocks):
            for j in range(count):
                x = block(params, f"{i}.{j}", x, 2 if i and not j else 1)
        return F.cross_entropy(F.linear(x.mean((2, 3)), params["fc.weight"], params["fc.bias"]), labels)

    return eager_and_compiled(loss)


def of_norm(name, theirs):
    """Its scale and shift."""
    return {f"{name}.weight": theirs.gamma, f"{name}.bias": theirs.beta}


def parameters(theirs):
    """PyTorch's names and layouts."""
    params = {"conv.weight": kernel(theirs["conv1"].K)} | of_norm("bn", theirs["bn1"])
    i = 0
    while f"layer{i + 1}" in theirs:
        for j, one in enumerate(theirs[f"layer{i + 1}"]):
            name, inside = f"{i}.{j}", one["residual"]
            if "shortcut" in inside:
                shortcut, inside = inside["shortcut"], inside["inside"]
                params |= {f"{name}.shortcut.weight": kernel(shortcut[0].K)} | of_norm(f"{name}.bn", shortcut[1])
            for k in (1, 2):
                params[f"{name}.conv{k}.weight"] = kernel(inside[f"conv{k}"].K)
                params |= of_norm(f"{name}.bn{k}", inside[f"bn{k}"])
        i += 1
    return params | {"fc.weight": theirs["fc"].W.T, "fc.bias": theirs["fc"].b}


def arguments(theirs, x, labels):
    """As tensors."""
    return as_tensors(parameters(theirs), x, labels)
