"""Group norm and instance norm as layers."""

from typing import Literal

from handgrad import rules
from handgrad.checks import check_count
from handgrad.layers.layer import Layer
from handgrad.layers.normalization._norm import norm

__all__ = ["group_norm", "instance_norm"]


def group_norm(
    groups: int,
    *,
    eps: float = 1e-5,
    scale: bool = True,
    shift: bool = True,
    residuals: Literal["save", "recompute"] = "save",
) -> Layer:
    """Every group of features to mean 0 and variance 1 over an example's tokens, then γ and β.

    Args:
      groups: how many; divides the number of features, which the forward pass checks.
      eps, scale, shift, residuals: as layer_norm's.
    Derivation: docs/derivations/normalization/group_norm.md
    """
    check_count("group_norm", "groups", groups)
    return norm(rules.group_norm.with_options(groups=groups, eps=eps, residuals=residuals), scale, shift)


def instance_norm(
    *, eps: float = 1e-5, scale: bool = True, shift: bool = True, residuals: Literal["save", "recompute"] = "save"
) -> Layer:
    """Every feature to mean 0 and variance 1 over an example's tokens, then γ and β.

    Args:
      eps, scale, shift, residuals: as layer_norm's.
    Derivation: docs/derivations/normalization/group_norm.md
    """
    return norm(rules.instance_norm.with_options(eps=eps, residuals=residuals), scale, shift)
