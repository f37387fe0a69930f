"""What every norm's layer shares: its parameters, and how they go to the rule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_array, check_params, describe
from handgrad.layers.layer import Layer, made_by
from handgrad.rule import Rule

__all__ = ["NormParams"]

Rows = Float[Array, "batch *rest n"]


class NormParams(NamedTuple):
    """Parameters of every norm.

    Attributes:
      gamma: (n,) scale, or None; initialized to ones.
      beta: (n,) shift, or None; initialized to zeros.
    """

    gamma: Array | None
    beta: Array | None = None


def norm(
    rule: Rule[..., Array], scale: bool, shift: bool, *, name: str | None = None, couples: str | None = None
) -> Layer:
    """The layer of NormParams around a rule of (X, gamma, beta)."""
    where = name or rule.__name__

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> NormParams:
        check_array(where, "x", x, min_ndim=2)
        n, dtype = x.shape[-1], jax.dtypes.canonicalize_dtype(x.dtype)
        return NormParams(jnp.ones(n, dtype) if scale else None, jnp.zeros(n, dtype) if shift else None)

    def forward(params: NormParams, x: Rows, key: PRNGKeyArray | None = None) -> tuple[Rows, PyTree]:
        check_params(where, params, NormParams)
        for field, value, wanted in zip(NormParams._fields, params, (scale, shift), strict=True):
            if (value is not None) != wanted:
                expected = "an array" if wanted else "None"
                raise InputError(f"{where}: params.{field} must be {expected}, got {describe(value)}")
        return rule.forward(x, *params)

    def backward(residuals: PyTree, dy: Rows) -> tuple[Rows, NormParams]:
        dx, dgamma, dbeta = rule.backward(residuals, dy)
        return dx, NormParams(dgamma, dbeta)

    return made_by(where, Layer(init, forward, backward, couples))
