"""REINFORCE, the score function's estimate of an expected reward's gradient, with a baseline."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from handgrad.checks import InputError, check_array, check_residuals, check_shape, describe
from handgrad.rule import Rule
from handgrad.rules.losses._actions import Actions, Advantages, Mask, Reduction, counting, weight_of_actions
from handgrad.rules.losses._losses import Losses, per_example, pulled, to_elements

__all__ = ["ReinforceLossResiduals", "reinforce_loss", "reinforce_loss_backward", "reinforce_loss_forward"]


class ReinforceLossResiduals(NamedTuple):
    """The arguments L, R, B and mask: references, no copies."""

    L: Actions
    R: Advantages
    B: Advantages | None
    mask: Mask | None


def reinforce_loss_forward(
    L: Actions, R: Advantages, B: Advantages | None = None, mask: Mask | None = None, *, reduction: Reduction = "sum"
) -> tuple[Losses, ReinforceLossResiduals]:
    """C_b = −Σ_t w_t (r_t − b_t) ℓ_t, returns and baseline being numbers: its gradient is the estimate, C itself is not
    the expected reward.

    Args:
      L: log-probabilities of the actions that were drawn.
      R: returns: of each action (L's shape), of each sequence, or of each example (L's first axes).
      B: baseline, of R's shape: whatever doesn't depend on the action; None for none.
      mask: which actions count; the others may hold anything, NaN too. None: all.
      reduction: "sum" over an example's actions, or "mean" as in ppo_loss.
    Derivation: docs/derivations/losses/reinforce.md (Williams 1992)
    """
    where = "reinforce_loss_forward"
    check_array(where, "the log-probabilities L", L, min_ndim=1)
    check_array(where, "the returns R", R, min_ndim=1)
    check_shape(where, "the returns R", R, L.shape[: R.ndim], "(the first axes of L)")
    if B is not None:
        check_array(where, "the baseline B", B)
        check_shape(where, "the baseline B", B, R.shape, "like the returns R")
    if mask is not None:
        check_shape(where, "mask", mask, L.shape, "like L")
        if mask.dtype != bool:
            raise InputError(f"{where}: mask must be of booleans, got {describe(mask)}")
    ell, advantage = _read(L, R, B, mask)
    w = weight_of_actions(where, ell, mask, reduction)
    kept = ReinforceLossResiduals(L, R, B, mask)
    return per_example(-w * jax.lax.stop_gradient(advantage) * ell, _dtype(L, R, B)), kept


def reinforce_loss_backward(
    residuals: ReinforceLossResiduals, dC: Losses, *, reduction: Reduction = "sum"
) -> tuple[Actions, Advantages, Advantages | None, None]:
    """Pull dC back to the log-probabilities; returns and baseline are numbers, with cotangents of 0.

        dL = −dC ∘ W ∘ (R − B)      dR = 0      dB = 0

    Derivation: docs/derivations/losses/reinforce.md
    """
    where = "reinforce_loss_backward"
    L, R, B, mask = check_residuals(where, residuals, ReinforceLossResiduals)
    dC = to_elements(where, dC, L, _dtype(L, R, B))
    ell, advantage = _read(L, R, B, mask)
    dL = pulled(-dC * weight_of_actions(where, ell, mask, reduction), advantage + jnp.zeros_like(ell), L)
    return dL, jnp.zeros_like(R), None if B is None else jnp.zeros_like(B), None


reinforce_loss = Rule(reinforce_loss_forward, reinforce_loss_backward)


def _read(L: Array, R: Array, B: Array | None, mask: Array | None) -> tuple[Array, Array]:
    """ℓ and r − b, 0 where the mask is False."""
    ell, *rewards = counting(mask, L, R, *([] if B is None else [B]))
    return ell, rewards[0] if B is None else rewards[0] - rewards[1]


def _dtype(L: Array, R: Array, B: Array | None) -> jnp.dtype:
    return jnp.result_type(L, R) if B is None else jnp.result_type(L, R, B)
