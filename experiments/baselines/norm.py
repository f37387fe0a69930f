"""Layer and RMS norm in plain JAX."""

import jax.numpy as jnp
from jax import lax

from baselines.pullback import pullback


def layer_norm(x, scale, shift, eps=1e-5):
    """As its paper has it."""
    mean, variance = jnp.mean(x, -1, keepdims=True), jnp.var(x, -1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + eps) * scale + shift


def rms_norm(x, scale, eps=1e-6):
    """As its paper has it."""
    return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * scale


def ways(*, kind, **sizes):
    """Output and pullback."""
    return {"jax.vjp": pullback({"layer_norm": layer_norm, "rms_norm": rms_norm}[kind])}
