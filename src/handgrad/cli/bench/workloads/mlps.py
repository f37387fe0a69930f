"""Multi-layer perceptrons, and deep stacks of one block."""

from handgrad import layers
from handgrad.cli.bench.workload import Program, Workload, integers, normal, of_model
from handgrad.models import mlp

ACTIVATIONS = {"sigmoid": layers.sigmoid, "relu": layers.relu, "gelu": layers.gelu, "tanh": layers.tanh}


def perceptron(sizes: tuple[int, ...], activation: str, batch: int) -> Program:
    """Linear layers with an activation between them, and softmax cross-entropy."""
    model, loss = mlp(sizes, ACTIVATIONS[activation]()), layers.softmax_cross_entropy()
    return of_model(model, loss, normal(1, batch, sizes[0]), integers(2, sizes[-1], batch))


def stack(width: int, depth: int, activation: str, batch: int) -> Program:
    """x + activation(x W + b), `depth` times, and the squared error."""
    block = layers.residual(layers.chain(layers.linear(width), ACTIVATIONS[activation]()))
    x, target = normal(1, batch, width), normal(2, batch, width)
    return of_model(layers.repeat(block, depth), layers.squared_error(), x, target)


def _perceptron(name: str, sizes: tuple[int, ...], activation: str, batch: int) -> Workload:
    chosen = {"sizes": sizes, "activation": activation, "batch": batch}
    tiny = {"sizes": (5, 4, 3), "batch": 6}
    return Workload(f"mlp-{name}-{activation}", perceptron, chosen, tiny, ("mlp", "mlp_torch"))


def _stack(activation: str, batch: int) -> Workload:
    chosen = {"width": 128, "depth": 16, "activation": activation, "batch": batch}
    baselines = ("residual_stack", "residual_stack_torch")
    return Workload(
        f"repeat-{activation}-batch-{batch}", stack, chosen, {"width": 4, "depth": 3, "batch": 5}, baselines
    )


WORKLOADS = (
    _perceptron("784-30-10", (784, 30, 10), "sigmoid", 10),
    _perceptron("784-256-256-10", (784, 256, 256, 10), "relu", 128),
    _perceptron("256x6-10", (256,) * 6 + (10,), "gelu", 256),
    _perceptron("512x4-10", (512,) * 4 + (10,), "tanh", 256),
    _perceptron("1024x4-10", (1024,) * 4 + (10,), "relu", 512),
    *(_stack(activation, batch) for activation in ("relu", "gelu") for batch in (32, 256, 2048)),
)
