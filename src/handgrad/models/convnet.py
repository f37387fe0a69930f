"""convnet: LeNet-5 and a small residual network, from the rules alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from handgrad.checks import InputError, check_choice, check_count
from handgrad.layers import (
    Layer,
    average_pool,
    batch_norm,
    chain,
    convolution,
    flatten,
    global_average_pool,
    group_norm,
    linear,
    max_pool,
    relu,
    residual,
    tanh,
)
from handgrad.models.state_table import KERNEL, TRANSPOSED, StateTable, Weight

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"tanh": tanh, "relu": relu}
POOLS: dict[str, Callable[[int], Layer]] = {"average": average_pool, "max": max_pool}
# One element on each side, as for the published weights: with strides of 2, "SAME" would pad at the end.
AROUND = ((1, 1), (1, 1))


@dataclass(frozen=True)
class Lenet5Config:
    """Choices of a LeNet-5; the defaults are the paper's.

    Attributes:
      classes: features of the output.
      activation: after every convolution and linear layer but the last.
      pool: of 2 × 2 elements.
    """

    classes: int = 10
    activation: Literal["tanh", "relu"] = "tanh"
    pool: Literal["average", "max"] = "average"


def lenet5(config: Lenet5Config = Lenet5Config()) -> Layer:
    """Images (batch, 28, 28, 1) -> logits (batch, classes): LeCun et al. 1998.

    Two convolutions of 5 × 5 with a pool each, to 6 and 16 features, then linear layers of 120 and 84. The first pads
    by two elements: the paper's images of 32 × 32 are MNIST's with that margin. Simpler than the paper, as is usual
    today: the second convolution is dense in the features, pools have no parameters, and the last layer gives logits
    instead of distances.

    Raises:
      InputError: classes is not a positive integer, another activation or pool; at trace time, as the layers do.
    """
    check_count("lenet5", "classes", config.classes)
    check_choice("lenet5", "activation", config.activation, tuple(ACTIVATIONS))
    check_choice("lenet5", "pool", config.pool, tuple(POOLS))
    activation, pool = ACTIVATIONS[config.activation](), POOLS[config.pool](2)
    return chain(
        conv1=convolution(6, 5),
        activation1=activation,
        pool1=pool,
        conv2=convolution(16, 5, padding="VALID"),
        activation2=activation,
        pool2=pool,
        flatten=flatten(),
        fc1=linear(120),
        activation3=activation,
        fc2=linear(84),
        activation4=activation,
        fc3=linear(config.classes),
    )


LENET5_STATE = StateTable(
    {f"conv{i}.K": Weight(f"conv{i}.weight", KERNEL) for i in (1, 2)}
    | {f"fc{i}.W": Weight(f"fc{i}.weight", TRANSPOSED, image=(5, 5, 16) if i == 1 else None) for i in (1, 2, 3)}
    | {f"{name}.b": Weight(f"{name}.bias") for name in ("conv1", "conv2", "fc1", "fc2", "fc3")}
)
"""Where each parameter is in a state with the names of PyTorch's tutorial of this network. Images are features first
there, and so are the inputs of the first linear layer."""


@dataclass(frozen=True)
class ResnetConfig:
    """Sizes of a residual network for small images; each stage after the first halves the image's sides.

    Attributes:
      classes: features of the output.
      widths: features of each stage.
      blocks: basic blocks of each stage.
      norm: "group" normalizes each example; "batch" by the batch's statistics, the paper's choice, but then examples
        interact, and there are no per-example gradients.
      groups: of the group norm; they divide every width.
    """

    classes: int = 10
    widths: Sequence[int] = (16, 32, 64)
    blocks: Sequence[int] = (1, 1, 1)
    norm: Literal["group", "batch"] = "group"
    groups: int = 8


def resnet(config: ResnetConfig = ResnetConfig()) -> Layer:
    """Images (batch, height, width, features) -> logits (batch, classes): He et al. 2016, for small images.

    A convolution of 3 × 3, stages of basic blocks, the mean over space, and a linear layer. A block is
    relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))). Where it changes the shape, the shortcut is a norm of a 1 × 1
    convolution with the block's strides (the paper's option B), elsewhere it is x.

    Raises:
      InputError: not one number of blocks for each width, a number that isn't a positive integer, another norm; at
        trace time, groups that don't divide a width, and as the layers do.
    """
    if len(config.widths) != len(config.blocks) or not config.widths:
        raise InputError(f"resnet: blocks must be one number for each of {config.widths}, got {config.blocks}")
    check_choice("resnet", "norm", config.norm, ("group", "batch"))
    for name, numbers in (("widths", config.widths), ("blocks", config.blocks), ("classes", [config.classes])):
        for n in numbers:
            check_count("resnet", name, n)
    first = config.widths[0]
    stages, n_in = {}, first
    for i, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True), start=1):
        blocks = []
        for j in range(count):
            blocks.append(_basic_block(config, n_in, width, strides=2 if i > 1 and j == 0 else 1))
            n_in = width
        stages[f"layer{i}"] = chain(*blocks)
    return chain(
        conv1=convolution(first, 3, padding=AROUND, bias=False),
        bn1=_norm(config),
        relu=relu(),
        **stages,
        pool=global_average_pool(),
        fc=linear(config.classes),
    )


def _basic_block(config: ResnetConfig, n_in: int, n_out: int, strides: int) -> Layer:
    """Two convolutions of 3 × 3 and their shortcut."""
    inside = chain(
        conv1=convolution(n_out, 3, strides=strides, padding=AROUND, bias=False),
        bn1=_norm(config),
        relu=relu(),
        conv2=convolution(n_out, 3, padding=AROUND, bias=False),
        bn2=_norm(config),
    )
    same = strides == 1 and n_in == n_out
    shortcut = None if same else chain(convolution(n_out, 1, strides=strides, bias=False), _norm(config))
    return chain(residual=residual(inside, shortcut), relu=relu())


def _norm(config: ResnetConfig) -> Layer:
    return batch_norm() if config.norm == "batch" else group_norm(config.groups)


def resnet_state(config: ResnetConfig) -> StateTable:
    """Where a `resnet`'s parameters are in a state with torchvision's names; docs/models.md shows the table.

    Running averages are buffers, which are ignored: batch norm here uses the batch's statistics.
    """
    table = _norm_state("bn1", "bn1") | {
        "conv1.K": Weight("conv1.weight", KERNEL),
        "fc.W": Weight("fc.weight", TRANSPOSED),
        "fc.b": Weight("fc.bias"),
    }
    n_in = config.widths[0]
    for i, (width, count) in enumerate(zip(config.widths, config.blocks, strict=True), start=1):
        for j in range(count):
            block = f"layer{i}.{j}"
            inside = f"{block}.residual"
            if j == 0 and (i > 1 or n_in != width):
                shortcut = f"{inside}.shortcut"
                inside = f"{inside}.inside"
                table[f"{shortcut}.0.K"] = Weight(f"{block}.downsample.0.weight", KERNEL)
                table |= _norm_state(f"{shortcut}.1", f"{block}.downsample.1")
            for k in (1, 2):
                table[f"{inside}.conv{k}.K"] = Weight(f"{block}.conv{k}.weight", KERNEL)
                table |= _norm_state(f"{inside}.bn{k}", f"{block}.bn{k}")
        n_in = width
    if config.norm == "group":
        return StateTable(table)
    norms = [weight.name.removesuffix(".weight") for path, weight in table.items() if path.endswith(".gamma")]
    statistics = {
        "running_mean": "a running average",
        "running_var": "a running average",
        "num_batches_tracked": "a count",
    }
    return StateTable(table, {f"{norm}.{name}": what for norm in norms for name, what in statistics.items()})


def _norm_state(ours: str, theirs: str) -> dict[str, Weight]:
    return {f"{ours}.gamma": Weight(f"{theirs}.weight"), f"{ours}.beta": Weight(f"{theirs}.bias")}
