"""Rows of rules/group_norm.py."""

import jax.numpy as jnp
import numpy as np

from cases.case import Case, normal
from cases.normalization import affine
from handgrad import layers


def group_norm(X, gamma=None, beta=None, groups=2, eps=1e-5):
    """Group by group, each flattened to one row for each example."""
    A = []
    for part in jnp.split(X, groups, axis=-1):
        rows = part.reshape(part.shape[0], -1)
        rows = (rows - jnp.mean(rows, 1, keepdims=True)) / jnp.sqrt(jnp.var(rows, 1, keepdims=True) + eps)
        A.append(rows.reshape(part.shape))
    return affine(jnp.concatenate(A, -1), gamma, beta)


def instance_norm(X, gamma=None, beta=None, eps=1e-5):
    """Feature by feature, tokens moved to the end."""
    rows = jnp.moveaxis(X, -1, 1).reshape(X.shape[0], X.shape[-1], -1)
    rows = (rows - jnp.mean(rows, 2, keepdims=True)) / jnp.sqrt(jnp.var(rows, 2, keepdims=True) + eps)
    return affine(jnp.moveaxis(rows, 1, 2).reshape(X.shape), gamma, beta)


def of_large_mean(rng):
    """Tokens of mean 1000, and a group without variance."""
    X = 1e3 + rng.standard_normal((2, 5, 4))
    X[1, :, :2] = 2.0
    return X, rng.standard_normal(4), rng.standard_normal(4)


CASES = [
    Case("group_norm", "tokens", normal((3, 2, 4), (4,), (4,)), group_norm, {"groups": 2}),
    Case(
        "group_norm",
        "images-recompute",
        normal((2, 3, 2, 3), (3,)),
        group_norm,
        {"groups": 1, "eps": 0.1, "residuals": "recompute"},
    ),
    Case("group_norm", "rows-no-scale", normal((5, 6)), group_norm, {"groups": 3}),
    Case("group_norm", "large-mean", of_large_mean, group_norm, {"groups": 2}),
    Case("instance_norm", "tokens", normal((2, 5, 3), (3,), (3,)), instance_norm),
    Case(
        "instance_norm",
        "images-recompute",
        normal((2, 3, 2, 3), (3,)),
        instance_norm,
        {"eps": 0.1, "residuals": "recompute"},
    ),
    Case("instance_norm", "large-mean", of_large_mean, instance_norm),
    Case("instance_norm", "one-feature", lambda rng: (rng.standard_normal((1, 4, 1)), None, np.ones(1)), instance_norm),
]


LAYERS = {"group_norm": lambda: layers.group_norm(2), "instance_norm": layers.instance_norm}
