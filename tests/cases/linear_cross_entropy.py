"""Rows of rules/linear_cross_entropy.py."""

import jax.numpy as jnp

from cases.case import Case
from cases.softmax_cross_entropy import softmax_cross_entropy, some_ignored
from handgrad import layers

OP = "linear_cross_entropy"


def linear_cross_entropy(X, W, b, Y, chunk=None, **options):
    """The logits written out."""
    Z = jnp.einsum("...i,io->...o", X, W)
    return softmax_cross_entropy(Z if b is None else Z + jnp.broadcast_to(b, Z.shape), Y, **options)


def projected(*batch, n_in=3, n=5, bias=True):
    """X, W, b and labels, of which some are to be ignored."""

    def draw(rng):
        X, W, b = (rng.standard_normal(shape) for shape in ((*batch, n_in), (n_in, n), (n,)))
        return X, W, b if bias else None, some_ignored(rng, (*batch, n))

    return draw


def row(name, draw, **options):
    return Case(OP, name, draw, linear_cross_entropy, {"ignore_index": -100, **options})


CASES = [
    row("tokens", projected(3, 4), chunk=4),
    row("rows-no-bias", projected(5, bias=False), chunk=2),
    row("space", projected(2, 2, 3), label_smoothing=0.1, z_loss=0.1, softcap=3.0, chunk=5),
]


LAYERS = {OP: layers.linear_cross_entropy}
