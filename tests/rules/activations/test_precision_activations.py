"""Activations and gated units: a few ulps, or twice the best of jax.grad's and PyTorch's, over the whole range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import Subject, against, assert_precise, autodiff, by_torch, cotangents, grid


def sigma(x):
    """σ(x) in NumPy, with all digits on both sides."""
    E = np.exp(-np.abs(x))
    return np.where(x < 0, E, 1) / (1 + E)


def slope_of(value, slope):
    """The truth of an activation from its value and its slope in NumPy."""

    def run(X, dY):
        with np.errstate(all="ignore"):
            return value(X), dY * slope(X)

    return run


def exponential(scale, alpha):
    return slope_of(
        lambda x: np.where(x > 0, scale * x, scale * alpha * np.expm1(np.minimum(x, 0))),
        lambda x: np.where(x > 0, scale, scale * alpha * np.exp(np.minimum(x, 0))),
    )


def tanh_form(x):
    """x σ(2u): the tanh form of gelu, of which a float64 keeps all digits on the left as well."""
    return x * jax.nn.sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


# Where σ is a subnormal number and flushed to zero, but x σ is none: left out.
FLUSHED = {"silu": (-92, -87), "swiglu": (-92, -87), "mish": (-92, -87), "tanh-form": (-11, -10)}


def inputs_of(op, name, dtype, dense=4001):
    numbers = grid(dtype, dense)
    low, high = FLUSHED.get(op) or FLUSHED.get(name) or (0, 0)
    return numbers[~((numbers > low) & (numbers < high))]


def activation(op, primal, of_torch, truth=None, name="grid", **options):
    """The rows of one activation; the truth is float64 autodiff of its primal where that keeps its digits."""

    def inputs(dtype):
        X = inputs_of(op, name, dtype)
        return X, cotangents(X.shape, dtype)

    return Subject(
        op,
        name,
        ("Y", "dX"),
        inputs,
        autodiff(primal) if truth is None else truth,
        rivals={"jax.grad": autodiff(primal), **by_torch(of_torch)},
        options=options,
    )


SECH = slope_of(np.tanh, lambda x: 4 * sigma(2 * x) * sigma(-2 * x))
ELU = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
ACTIVATIONS = [
    activation("identity", lambda x: x * 1, lambda t, x: x * 1),
    activation("sigmoid", jax.nn.sigmoid, lambda t, x: t.sigmoid(x), slope_of(sigma, lambda x: sigma(x) * sigma(-x))),
    activation("tanh", jnp.tanh, lambda t, x: t.tanh(x), SECH),
    activation(
        "softplus",
        jax.nn.softplus,
        lambda t, x: t.nn.functional.softplus(x),
        slope_of(lambda x: np.logaddexp(x, 0), sigma),
    ),
    activation("relu", jax.nn.relu, lambda t, x: t.relu(x)),
    activation("leaky_relu", jax.nn.leaky_relu, lambda t, x: t.nn.functional.leaky_relu(x)),
    activation("elu", jax.nn.elu, lambda t, x: t.nn.functional.elu(x), exponential(1.0, 1.0)),
    activation("selu", jax.nn.selu, lambda t, x: t.nn.functional.selu(x), exponential(*ELU)),
    activation("silu", jax.nn.silu, lambda t, x: t.nn.functional.silu(x)),
    activation("mish", jax.nn.mish, lambda t, x: t.nn.functional.mish(x)),
    activation("gelu", lambda x: jax.nn.gelu(x, approximate=False), lambda t, x: t.nn.functional.gelu(x)),
    activation(
        "gelu",
        lambda x: jax.nn.gelu(x, approximate=True),
        lambda t, x: t.nn.functional.gelu(x, approximate="tanh"),
        autodiff(tanh_form),
        name="tanh-form",
        approximate=True,
    ),
    activation(
        "sigmoid",
        jax.nn.sigmoid,
        lambda t, x: t.sigmoid(x),
        slope_of(sigma, lambda x: sigma(x) * sigma(-x)),
        name="of-its-input",
        residuals="recompute",
    ),
    activation("tanh", jnp.tanh, lambda t, x: t.tanh(x), SECH, name="of-its-input", residuals="recompute"),
    activation("silu", jax.nn.silu, lambda t, x: t.nn.functional.silu(x), name="saved", residuals="save"),
]


def gated(op, gate, of_torch, truth=None, name="grid", **options):
    """The rows of Y = g(U) ∘ V: many U against a few V."""

    def inputs(dtype):
        U, V = against(inputs_of(op, name, dtype, 1001), [1e-3, -0.7, 1.0], dtype=dtype)
        return U, V, cotangents(U.shape, dtype)

    return Subject(
        op,
        name,
        ("Y", "dU", "dV"),
        inputs,
        autodiff(lambda U, V: (truth or gate)(U) * V),
        rivals={"jax.grad": autodiff(lambda U, V: gate(U) * V), **by_torch(lambda t, U, V: of_torch(t, U) * V)},
        options=options,
    )


GATED = [
    gated("glu", jax.nn.sigmoid, lambda t, u: t.sigmoid(u), lambda u: jnp.exp(-jnp.logaddexp(-u, 0.0))),
    gated("swiglu", jax.nn.silu, lambda t, u: t.nn.functional.silu(u)),
    gated("geglu", lambda u: jax.nn.gelu(u, approximate=False), lambda t, u: t.nn.functional.gelu(u)),
    gated(
        "geglu",
        lambda u: jax.nn.gelu(u, approximate=True),
        lambda t, u: t.nn.functional.gelu(u, approximate="tanh"),
        tanh_form,
        name="tanh-form",
        approximate=True,
    ),
]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("subject", [*ACTIVATIONS, *GATED], ids=str)
def test_over_the_whole_range(subject, dtype):
    assert_precise(subject, dtype)
