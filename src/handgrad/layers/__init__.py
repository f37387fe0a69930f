"""Layer = (init, forward, backward): parameters around rules, and composition."""

from handgrad.layers.activations import (
    elu,
    gelu,
    identity,
    leaky_relu,
    log_softmax,
    logsumexp,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from handgrad.layers.chain import chain
from handgrad.layers.layer import Layer, Loss, from_rule, loss_from_rule
from handgrad.layers.linear import LinearParams, linear
from handgrad.layers.losses import (
    absolute_error,
    binary_cross_entropy,
    huber_loss,
    l2_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_error,
)
from handgrad.layers.repeat import repeat
from handgrad.layers.residual import residual

__all__ = [
    "Layer",
    "LinearParams",
    "Loss",
    "absolute_error",
    "binary_cross_entropy",
    "chain",
    "elu",
    "from_rule",
    "gelu",
    "huber_loss",
    "identity",
    "l2_loss",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsumexp",
    "loss_from_rule",
    "mish",
    "relu",
    "repeat",
    "residual",
    "selu",
    "sigmoid",
    "sigmoid_cross_entropy",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "squared_error",
    "tanh",
]
