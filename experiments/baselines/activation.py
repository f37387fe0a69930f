"""Activations of jax.nn."""

import functools

import jax

from baselines.pullback import pullback


def ways(*, kind, **sizes):
    """Output and pullback."""
    function = functools.partial(jax.nn.gelu, approximate=False) if kind == "gelu" else getattr(jax.nn, kind)
    return {"jax.nn": pullback(function)}
