"""All-CNN-C in PyTorch, without dropout."""

from baselines.layouts import as_tensors, kernel
from baselines.torch_ways import eager_and_compiled, torch

F = torch.nn.functional
# strides and padding of each convolution; on even sides "SAME" pads a strided one at the end alone
PLAN = ((1, 1), (1, 1), (2, "end"), (1, 1), (1, 1), (2, "end"), (1, 0), (1, 0), (1, 0))


def loss(params, x, labels):
    """Mean cross-entropy of a batch."""
    for i, (stride, padding) in enumerate(PLAN):
        if padding == "end":
            x, padding = F.pad(x, (0, 1, 0, 1)), 0
        x = F.relu(F.conv2d(x, params[f"{i}.weight"], params[f"{i}.bias"], stride, padding))
    return F.cross_entropy(x.mean((2, 3)), labels)


def ways(**sizes):
    """Value and gradient."""
    return eager_and_compiled(loss)


def parameters(theirs):
    """PyTorch's names and layouts."""
    params = {}
    for i in range(len(PLAN)):
        params |= {f"{i}.weight": kernel(theirs[f"conv{i}"].K), f"{i}.bias": theirs[f"conv{i}"].b}
    return params


def arguments(theirs, x, labels):
    """As tensors."""
    return as_tensors(parameters(theirs), x, labels)
