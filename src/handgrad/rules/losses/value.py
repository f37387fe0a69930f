"""The value loss of PPO: a regression on returns that stops where a value has moved far from what it was."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import InputError, check_array, check_positive, check_residuals, check_shape, describe
from handgrad.rule import Rule
from handgrad.rules.losses._actions import (
    Actions,
    Advantages,
    Mask,
    Reduction,
    counting,
    of_advantages,
    weight_of_actions,
)
from handgrad.rules.losses._losses import Losses, per_example, pulled, to_elements

__all__ = ["PpoValueLossResiduals", "ppo_value_loss", "ppo_value_loss_backward", "ppo_value_loss_forward"]


class PpoValueLossResiduals(NamedTuple):
    """The arguments V, V_old, R and mask: references, no copies."""

    V: Actions
    V_old: Actions
    R: Advantages
    mask: Mask | None


def ppo_value_loss_forward(
    V: Actions,
    V_old: Actions,
    R: Advantages,
    mask: Mask | None = None,
    *,
    clip: float = 0.2,
    reduction: Reduction = "mean",
) -> tuple[Losses, PpoValueLossResiduals]:
    """C_b = ½ Σ_t w_t max((v_t − r_t)², (u_t − r_t)²), u = v_old + clip(v − v_old, −ε, ε).

    Args:
      V: values of states, or of tokens.
      V_old: values when the actions were drawn.
      R: returns: of each state (V's shape), of each sequence, or of each example (V's first axes).
      mask: which states count; the others may hold anything, NaN too. None: all.
      clip: ε > 0, in units of the value.
      reduction: "mean" or "sum", as in ppo_loss.
    Derivation: docs/derivations/losses/value.md (Schulman et al. 2017)
    """
    where = "ppo_value_loss_forward"
    check_array(where, "the values V", V, min_ndim=1)
    check_array(where, "V_old", V_old)
    check_shape(where, "V_old", V_old, V.shape, "like V")
    check_array(where, "the returns R", R, min_ndim=1)
    check_shape(where, "the returns R", R, V.shape[: R.ndim], "(the first axes of V)")
    if mask is not None:
        check_shape(where, "mask", mask, V.shape, "like V")
        if mask.dtype != bool:
            raise InputError(f"{where}: mask must be of booleans, got {describe(mask)}")
    check_positive(where, "clip", clip)
    v, old, r = counting(mask, V, V_old, R)
    w = weight_of_actions(where, v, mask, reduction)
    E, _ = _errors(v, old, r, clip)
    return per_example(w * E * E / 2, jnp.result_type(V, V_old, R)), PpoValueLossResiduals(V, V_old, R, mask)


def ppo_value_loss_backward(
    residuals: PpoValueLossResiduals, dC: Losses, *, clip: float = 0.2, reduction: Reduction = "mean"
) -> tuple[Actions, Actions, Advantages, None]:
    """Pull dC back through the value loss, E being the error that counts, v − r or u − r.

        dV = dC ∘ W ∘ E, 0 where u's counts      dV_old = dC ∘ W ∘ E where u's counts, 0 elsewhere      dR = −dC ∘ W ∘ E

    Where the two are equal, v's counts.

    Derivation: docs/derivations/losses/value.md
    """
    where = "ppo_value_loss_backward"
    V, V_old, R, mask = check_residuals(where, residuals, PpoValueLossResiduals)
    v, old, r = counting(mask, V, V_old, R)
    dC = to_elements(where, dC, V, jnp.result_type(V, V_old, R)) * weight_of_actions(where, v, mask, reduction)
    E, held = _errors(v, old, r, clip)
    D = pulled(dC, E, E)
    return jnp.where(held, 0, D).astype(V.dtype), jnp.where(held, D, 0).astype(V_old.dtype), of_advantages(-D, R), None


ppo_value_loss = Rule(ppo_value_loss_forward, ppo_value_loss_backward)


def _errors(v: Array, old: Array, r: Array, clip: float) -> tuple[Array, Array]:
    """The larger error, of v or of u, and where it is u's."""
    d = v - old
    u = jnp.where(jnp.abs(d) > clip, old + clip * jnp.sign(d), v)  # v itself within the clip, not old + d rounded
    held = jnp.abs(u - r) > jnp.abs(v - r)
    return jnp.where(held, u, v) - r, held
