"""A classifier of images: its options, its model, its training."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from handgrad import layers
from handgrad.checks import InputError, check_count, check_positive
from handgrad.layers import Layer, Loss, chain
from handgrad.models import mlp
from handgrad.training.digits.data import Split
from handgrad.training.evaluation import correct, evaluation
from handgrad.training.fit import fit
from handgrad.training.fit_run import fit_run
from handgrad.training.runs import Run
from handgrad.training.state import init_state

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "softplus", "mish"]
LossName = Literal[
    "softmax_cross_entropy",
    "sigmoid_cross_entropy",
    "binary_cross_entropy",
    "squared_error",
    "l2_loss",
    "absolute_error",
    "huber_loss",
]


@dataclass(frozen=True)
class Options:
    """What to train, and how."""

    sizes: tuple[int, ...] = (256, 128)
    """Features of each hidden layer; input and output follow from the data."""
    activation: Activation = "relu"
    """The activation after each hidden layer."""
    loss: LossName = "softmax_cross_entropy"
    """What to minimize."""
    optimizer: Literal["adam", "sgd", "momentum", "rmsprop"] = "adam"
    """An optax optimizer."""
    learning_rate: float = 2e-3
    """Above zero."""
    batch: int = 32
    """Examples in a mini-batch."""
    epochs: int = 40
    """Passes over the training set."""
    seed: int = 0
    """Of the initial parameters and the order of examples."""
    l2: float = 0.0
    """λ: adds ½ λ Σ w² to the objective, weights only."""

    def __post_init__(self) -> None:
        """Raise an InputError that names the option that makes no sense."""
        for n in self.sizes:
            check_count("Options", "sizes", n)
        check_positive("Options", "learning_rate", self.learning_rate)
        check_count("Options", "batch", self.batch)
        check_count("Options", "epochs", self.epochs)
        if self.seed < 0:
            raise InputError(f"Options: seed must be at least 0, got {self.seed}")
        if not self.l2 >= 0:
            raise InputError(f"Options: l2 must be at least 0, got {self.l2}")


class Trained(NamedTuple):
    """The result of training.

    Attributes:
      params: after the last epoch.
      history: the metrics of each epoch.
      logits: the model's outputs on the test set.
    """

    params: PyTree
    history: list[dict[str, float]]
    logits: Float[Array, "n classes"]

    @property
    def test_accuracy(self) -> float:
        """After the last epoch, between 0 and 1."""
        return self.history[-1]["test_accuracy"]


def train_classifier(
    options: Options, train: Split, test: Split, *, run: Run | None = None, progress: bool = False
) -> Trained:
    """Train on one split and evaluate on both after each epoch; in the folder of `run`, where there is one."""
    classes = int(train.labels.max()) + 1
    model, loss = build(options, train.x.shape[1], classes)
    optimizer = make_optimizer(options)
    init_key, fit_key = jax.random.split(jax.random.key(options.seed))
    state = init_state(jax.jit(model.init)(init_key, train.x[: options.batch]), optimizer, fit_key)
    data = {
        name: (split.x, targets(options, split.labels, classes)) for name, split in (("train", train), ("test", test))
    }
    evaluate = evaluation(model, loss, data, {"accuracy": correct})
    how = {"batch_size": options.batch, "epochs": options.epochs, "evaluate": evaluate, "progress": progress}
    if run:
        state, history = fit_run(run, model, loss, optimizer, state, data["train"], **how)
    else:
        history = []
        for reached, metrics in fit(model, loss, optimizer, state, data["train"], **how):
            state = reached
            history.append(metrics)
    return Trained(state.params, history, jax.jit(model.forward)(state.params, test.x)[0])


def build(options: Options, features: int, classes: int) -> tuple[Layer, Loss]:
    """The model and the loss that the options name."""
    model = mlp((features, *options.sizes, classes), getattr(layers, options.activation)())
    if options.loss == "binary_cross_entropy":
        model = chain(mlp=model, probabilities=layers.sigmoid())
    return model, getattr(layers, options.loss)()


def targets(
    options: Options, labels: Int[np.ndarray, " n"], classes: int
) -> Int[Array, " n"] | Float[Array, "n classes"]:
    """The labels as the loss takes them: integers, or one-hot rows."""
    if options.loss == "softmax_cross_entropy":
        return jnp.asarray(labels)
    return jax.nn.one_hot(labels, classes)


def make_optimizer(options: Options) -> optax.GradientTransformation:
    """The optax transformation that the options name; l2 decays the weights and not the biases."""
    rules = {
        "adam": optax.adam,
        "sgd": optax.sgd,
        "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
        "rmsprop": optax.rmsprop,
    }
    step = rules[options.optimizer](options.learning_rate)
    return optax.chain(optax.add_decayed_weights(options.l2, mask=is_weight), step) if options.l2 else step


def is_weight(params: PyTree) -> PyTree:
    """True for each matrix among the parameters, False for each bias."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
