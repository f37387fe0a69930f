"""Norms that leave the examples apart: layer, RMS, group and instance norm."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.checks import InputError, check_array, check_count, check_params, describe
from handgrad.layers.layer import Layer
from handgrad.rules.rule import Rule

__all__ = [
    "NormParams",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "rms_norm",
]

Array = jax.Array


class NormParams(NamedTuple):
    """Parameters of every norm.

    Attributes:
      gamma: (n,) scale, or None; ones at first.
      beta: (n,) shift, or None; zeros at first.
    """

    gamma: Any
    beta: Any = None


def layer_norm(*, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: str = "save") -> Layer:
    """Every row to mean 0 and variance 1, then γ and β: parameters NormParams(gamma, beta).

    Args:
      eps: positive number, added to the variance.
      scale: False leaves gamma away.
      shift: False leaves beta away.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Raises:
      InputError: at trace time, params of another layer, and as layer_norm_forward and layer_norm_backward.
    Derivation: docs/derivations/normalization/layer_norm.md
    """
    return norm(rules.layer_norm, scale, shift, eps=eps, residuals=residuals)


def rms_norm(*, eps: float = 1e-6, scale: bool = True, residuals: str = "save") -> Layer:
    """Every row to root mean square 1, then γ: parameters NormParams(gamma, None).

    Args:
      eps: positive number, added to the mean square.
      scale: False leaves gamma away.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Raises:
      InputError: at trace time, params of another layer, and as rms_norm_forward and rms_norm_backward.
    Derivation: docs/derivations/normalization/layer_norm.md
    """

    def forward(x: Array, gamma: Array | None, beta: None, **options: Any) -> tuple[Array, Any]:
        return rules.rms_norm_forward(x, gamma, **options)

    def backward(kept: Any, dy: Array, **options: Any) -> tuple[Any, ...]:
        return *rules.rms_norm_backward(kept, dy, **options), None

    return norm(Rule(forward, backward), scale, False, name="rms_norm", eps=eps, residuals=residuals)


def group_norm(
    groups: int, *, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: str = "save"
) -> Layer:
    """Every group of features to mean 0 and variance 1 over an example's tokens, then γ and β.

    Args:
      groups: how many; divides the number of features.
      eps: positive number, added to the variance.
      scale: False leaves gamma away.
      shift: False leaves beta away.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Raises:
      InputError: groups is not a positive integer; at trace time, params of another layer, and as group_norm_forward
        and group_norm_backward.
    Derivation: docs/derivations/normalization/group_norm.md
    """
    check_count("group_norm", "groups", groups)
    options = {"groups": groups, "eps": eps, "residuals": residuals}
    return norm(rules.group_norm, scale, shift, **options)


def instance_norm(*, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: str = "save") -> Layer:
    """Every feature to mean 0 and variance 1 over an example's tokens, then γ and β.

    Args:
      eps: positive number, added to the variance.
      scale: False leaves gamma away.
      shift: False leaves beta away.
      residuals: "save" keeps the normalized input, "recompute" the input.
    Raises:
      InputError: at trace time, params of another layer, and as instance_norm_forward and instance_norm_backward.
    Derivation: docs/derivations/normalization/group_norm.md
    """
    return norm(rules.instance_norm, scale, shift, eps=eps, residuals=residuals)


def norm(rule: Rule[..., Array], scale: bool, shift: bool, *, name: str | None = None, **options: Any) -> Layer:
    """The layer of NormParams around a rule of (X, gamma, beta)."""
    where = name or rule.__name__
    rule = rule.with_options(**options)

    def init(key: Array, x: Any) -> NormParams:
        check_array(where, "x", x, min_ndim=2)
        n, dtype = x.shape[-1], jax.dtypes.canonicalize_dtype(x.dtype)
        return NormParams(jnp.ones(n, dtype) if scale else None, jnp.zeros(n, dtype) if shift else None)

    def layer_forward(params: NormParams, x: Array, key: Array | None = None) -> tuple[Array, Any]:
        check_params(where, params, NormParams)
        for name, value, wanted in zip(NormParams._fields, params, (scale, shift), strict=True):
            if (value is not None) != wanted:
                expected = "an array" if wanted else "None"
                raise InputError(f"{where}: params.{name} must be {expected}, got {describe(value)}")
        return rule.forward(x, *params)

    def layer_backward(residuals: Any, dy: Array) -> tuple[Array, NormParams]:
        dx, dgamma, dbeta = rule.backward(residuals, dy)
        return dx, NormParams(dgamma, dbeta)

    return Layer(init, layer_forward, layer_backward)
