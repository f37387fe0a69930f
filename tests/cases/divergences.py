"""Rows of rules/divergences.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, distributions, per_example
from cases.softmax import log_softmax
from handgrad import layers


def kl_divergence(L, Y, log_target=False):
    if log_target:
        return per_example(jnp.exp(Y) * (Y - L))
    Y = Y.astype(jnp.result_type(L, Y))
    entropy = jnp.where(Y == 0, 0, Y * jnp.log(jnp.where(Y == 0, 1, Y)))
    return per_example(entropy - Y * L)


def poisson_loss(A, Y, log_input=True, full=False, epsilon=1e-8):
    C = jnp.exp(A) - Y * A if log_input else A - Y * jnp.log(A + epsilon)
    if full:
        y = jnp.where(Y > 1, Y, 2.0).astype(C.dtype)
        C = C + jnp.where(Y > 1, y * jnp.log(y) - y + 0.5 * jnp.log(2 * np.pi * y), 0)
    return per_example(C)


def log_distributions(rng, shape):
    return np.asarray(log_softmax(rng.standard_normal(shape)))


def beside_log_distributions(shape, target):
    return lambda rng: (log_distributions(rng, shape), target(rng, shape))


def sparse(rng, shape):
    """Distributions with a zero in each row."""
    Q = distributions(rng, shape)
    Q[..., 0] = 0
    return Q / Q.sum(-1, keepdims=True)


def one_hot(rng, shape):
    return np.eye(shape[-1], dtype=int)[rng.integers(0, shape[-1], shape[:-1])]


def counts(*shape, prediction=np.random.Generator.standard_normal, of=float):
    return lambda rng: (prediction(rng, size=shape), rng.poisson(2, shape).astype(of))


def rates(rng, size):
    return rng.uniform(0.1, 4, size)


CASES = [
    Case("kl_divergence", "rows", beside_log_distributions((5, 7), distributions), kl_divergence),
    Case("kl_divergence", "zeros", beside_log_distributions((3, 2, 4), sparse), kl_divergence),
    Case(
        "kl_divergence", "log", beside_log_distributions((3, 4), log_distributions), kl_divergence, {"log_target": True}
    ),
    Case("kl_divergence", "integers", beside_log_distributions((3, 4), one_hot), kl_divergence),
    Case("poisson_loss", "rows", counts(5, 7), poisson_loss),
    Case("poisson_loss", "tokens-integers", counts(3, 2, 4, of=int), poisson_loss, {"full": True}),
    Case("poisson_loss", "rates", counts(3, 4, prediction=rates), poisson_loss, {"log_input": False, "full": True}),
]


LAYERS = {"kl_divergence": layers.kl_divergence, "poisson_loss": layers.poisson_loss}
