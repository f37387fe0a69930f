"""Rows of rules/rectifiers.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, elementwise, fixed, normal
from handgrad import layers


def relu(X):
    return jnp.where(X > 0, X, 0)


def leaky_relu(X, negative_slope=0.01):
    return jnp.where(X >= 0, X, negative_slope * X)


def elu(X, alpha=1.0):
    return jnp.where(X > 0, X, alpha * jnp.expm1(jnp.where(X > 0, 0, X)))


def selu(X):
    return 1.0507009873554804934193349852946 * elu(X, 1.6732632423543772848170429916717)


CASES = [
    *elementwise("relu", relu),
    *elementwise("leaky_relu", leaky_relu),
    *elementwise("leaky_relu", leaky_relu, negative_slope=0.3),
    Case("leaky_relu", "underflow", fixed(np.array([[-1e-37, -1e-6, 1e-37, 1.0]])), leaky_relu),
    Case("relu", "mask", fixed(np.array([[-2.0, -0.0, 0.0, 1e-37, 3.0]])), relu, {"residuals": "mask"}),
    Case("leaky_relu", "mask", fixed(np.array([[-2.0, -0.0, 0.0, -1e-37, 3.0]])), leaky_relu, {"residuals": "mask"}),
    *elementwise("elu", elu),
    *elementwise("elu", elu, alpha=0.5),
    *elementwise("selu", selu),
    Case("elu", "save", normal((3, 4), scale=2.0), elu, {"alpha": 0.5, "residuals": "save"}),
    Case("selu", "save", normal((3, 4), scale=2.0), selu, {"residuals": "save"}),
]


LAYERS = {op: getattr(layers, op) for op in ("relu", "leaky_relu", "elu", "selu")}
