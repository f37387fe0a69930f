"""Text from a language model in bytes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad.layers import Layer
from language.options import Training

Window = tuple[Array, Array]  # bytes (tokens,), and how many of them there are yet


def sampler(model: Layer, options: Training) -> Callable[[PyTree, PRNGKeyArray], bytes]:
    """(params, key) -> the prompt and some bytes more, each drawn given the window of bytes before it.

    The model computes the whole window for each byte.
    """
    prompt, tokens = np.frombuffer(options.prompt.encode(), np.uint8), options.tokens

    @jax.jit
    def drawn(params: PyTree, key: PRNGKeyArray) -> Array:
        def step(carry: Window, key: PRNGKeyArray) -> tuple[Window, Array]:
            window, length = carry
            logits, _ = model.forward(params, jnp.expand_dims(window, 0))
            byte = jax.random.categorical(key, logits[0, length - 1] / options.temperature).astype(jnp.uint8)
            full = length == tokens
            window = jnp.where(full, jnp.roll(window, -1), window)
            length = jnp.where(full, length, length + 1)
            return (window.at[length - 1].set(byte), length), byte

        window = jnp.zeros(tokens, jnp.uint8).at[: len(prompt)].set(prompt)
        keys = jax.random.split(key, options.sample)
        return jax.lax.scan(step, (window, jnp.int32(len(prompt))), keys)[1]

    return lambda params, key: options.prompt.encode() + np.asarray(drawn(params, key)).tobytes()
