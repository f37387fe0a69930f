"""Convolutional networks: LeNet-5, DeepOBS's 3C3D and All-CNN-C (BackPACK's problems), a ResNet, a MobileNet."""

from handgrad import layers
from handgrad.cli.bench.workload import Program, Workload, integers, normal, of_model
from handgrad.layers import Layer
from handgrad.models import ResnetConfig, lenet5, resnet

CROSS_ENTROPY = layers.softmax_cross_entropy()


def of_lenet5(batch: int) -> Program:
    """LeCun et al. 1998, on MNIST's images."""
    return of_model(lenet5(), CROSS_ENTROPY, normal(1, batch, 28, 28, 1), integers(2, 10, batch))


def _on_cifar(model: Layer, batch: int, size: int, classes: int = 10) -> Program:
    return of_model(model, CROSS_ENTROPY, normal(1, batch, size, size, 3), integers(2, classes, batch))


def three_c3d(widths: tuple[int, int, int], hidden: tuple[int, int], batch: int) -> Program:
    """Three convolutions with a pool each, three linear layers."""
    convs = {}
    for i, (width, window, padding) in enumerate(zip(widths, (5, 3, 3), ("VALID", "VALID", "SAME"), strict=True)):
        convs |= {
            f"conv{i}": layers.convolution(width, window, padding=padding),
            f"relu{i}": layers.relu(),
            f"pool{i}": layers.max_pool(3, strides=2, padding="SAME"),
        }
    dense = {}
    for i, width in enumerate(hidden):
        dense |= {f"fc{i}": layers.linear(width), f"relu{3 + i}": layers.relu()}
    model = layers.chain(**convs, flatten=layers.flatten(), **dense, fc2=layers.linear(10))
    return _on_cifar(model, batch, 32)


def all_cnn_c(widths: tuple[int, int], classes: int, size: int, batch: int) -> Program:
    """Springenberg et al. 2015: nine convolutions, two of them strided, and a mean over space; no dropout."""
    a, b = widths
    plan = [(a, 3, 1), (a, 3, 1), (a, 3, 2), (b, 3, 1), (b, 3, 1), (b, 3, 2), (b, 3, 1), (b, 1, 1), (classes, 1, 1)]
    convs = {}
    for i, (width, window, strides) in enumerate(plan):
        padding = "VALID" if i == 6 else "SAME"
        convs |= {
            f"conv{i}": layers.convolution(width, window, strides=strides, padding=padding),
            f"relu{i}": layers.relu(),
        }
    return _on_cifar(layers.chain(**convs, mean=layers.global_average_pool()), batch, size, classes)


def of_resnet(widths: tuple[int, ...], blocks: tuple[int, ...], size: int, batch: int) -> Program:
    """He et al. 2016, for CIFAR, with batch norm."""
    return _on_cifar(resnet(ResnetConfig(10, widths, blocks, norm="batch")), batch, size)


def mobilenet(width: int, blocks: int, size: int, batch: int) -> Program:
    """Howard et al. 2017: a strided convolution, then pairs of a depthwise and a 1 × 1 one, batch norm and relu."""

    def unit(convolution: Layer) -> Layer:
        return layers.chain(conv=convolution, norm=layers.batch_norm(), relu=layers.relu())

    units = {"stem": unit(layers.convolution(width, 3, strides=2, bias=False))}
    for i in range(blocks):
        units |= {
            f"depthwise{i}": unit(layers.convolution(width, 3, groups=width, bias=False)),
            f"pointwise{i}": unit(layers.convolution(width, 1, bias=False)),
        }
    return _on_cifar(layers.chain(**units, mean=layers.global_average_pool(), fc=layers.linear(10)), batch, size)


WORKLOADS = (
    Workload("lenet5", of_lenet5, {"batch": 64}, {"batch": 2}, ("lenet5", "lenet5_torch")),
    Workload(
        "3c3d",
        three_c3d,
        {"widths": (64, 96, 128), "hidden": (512, 256), "batch": 16},
        {"widths": (2, 3, 4), "hidden": (5, 4), "batch": 2},
        ("three_c3d", "three_c3d_torch"),
    ),
    Workload(
        "all-cnn-c",
        all_cnn_c,
        {"widths": (96, 192), "classes": 100, "size": 32, "batch": 4},
        {"widths": (3, 4), "classes": 5, "size": 12, "batch": 2},
        ("all_cnn_c", "all_cnn_c_torch"),
    ),
    Workload(
        "resnet-20",
        of_resnet,
        {"widths": (16, 32, 64), "blocks": (3, 3, 3), "size": 32, "batch": 16},
        {"widths": (2, 3), "blocks": (2, 1), "size": 8, "batch": 3},
        ("resnet", "resnet_torch"),
    ),
    Workload(
        "mobilenet",
        mobilenet,
        {"width": 64, "blocks": 4, "size": 64, "batch": 8},
        {"width": 3, "blocks": 2, "size": 8, "batch": 3},
        ("mobilenet", "mobilenet_torch"),
    ),
)
