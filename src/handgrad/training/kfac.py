"""K-FAC as an optax transformation: gradients times the inverse of a Kronecker-factored curvature."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from handgrad.backprop import Key, Weights, check_batches, factors_of, materialize, mean_weights, weighted_sum
from handgrad.checks import InputError, check_choice, check_count, check_positive, describe
from handgrad.folds.curvature import kfac_factors
from handgrad.folds.curvature.blocks import Diagonal, Kronecker, is_block
from handgrad.folds.curvature.roots import draw_of, through_logits
from handgrad.layers import Layer, Loss
from handgrad.layers.layer import check_layer, check_loss
from handgrad.training.state import TrainState, noise_key
from handgrad.training.step import Scalar, Step

Block = Kronecker | Diagonal


class KfacState(NamedTuple):
    """The state of `scale_by_kfac`.

    Attributes:
      step: steps taken.
      averages: running averages of the Kronecker factors and diagonals.
      inverses: damped inverses of the averages, as they were when last computed.
    """

    step: Int[Array, ""]
    averages: PyTree[Block]
    inverses: PyTree[Block]


def scale_by_kfac(
    like: PyTree[Block],
    *,
    damping: float = 1e-3,
    decay: float = 0.95,
    inverse_every: int = 1,
    norm_constraint: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """g -> (A + π √λ I)⁻¹ g (G + √λ / π I)⁻¹ for a weight matrix, g / (d + λ) for a parameter with a diagonal.

    A, G and d are running averages of the `kfac_factors` that each update is given as an extra argument:
    `update(grads, state, params, kfac_factors=...)`. In step t the old average has weight min(1 − 1 / t, decay)
    (Martens & Grosse 2015, section 5), so that the first steps average evenly and none is biased toward zero.

    Args:
      like: what `kfac_factors` or `kflr_factors` return for the model, or its shapes and dtypes from
        `jax.eval_shape`: which parameters have Kronecker factors, and which a diagonal.
      damping: λ, added to the curvature; π balances its two halves.
      decay: the largest weight of the old average, in [0, 1).
      inverse_every: steps from one inversion to the next.
      norm_constraint: an upper bound of ⟨u, g⟩ for an update u. It is about uᵀ C u, the change of the model's
        distribution; a larger u is scaled down to the bound (Ba, Grosse & Martens 2017). None for no bound.
    Returns:
      A transformation to chain with others: `optax.chain(scale_by_kfac(like), optax.scale(-0.1))`. Pure; a whole step,
      inversions included, is one compiled program.
    Raises:
      InputError: an option out of its range; in an update, no kfac_factors, or others than `like`.
    Derivation: docs/curvature.md
    """
    check_positive("scale_by_kfac", "damping", damping)
    check_count("scale_by_kfac", "inverse_every", inverse_every)
    if norm_constraint is not None:
        check_positive("scale_by_kfac", "norm_constraint", norm_constraint)
    if not 0 <= decay < 1:
        raise InputError(f"scale_by_kfac: decay must be in [0, 1), got {decay!r}")
    like = jax.eval_shape(lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like))

    def init(params):
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        return KfacState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates, state, params=None, *, kfac_factors=None, **extra_args):
        del params, extra_args
        _check_like(kfac_factors, like)
        step = state.step + 1
        averages = jax.tree.map(lambda old, new: average(step, old, new), state.averages, kfac_factors)
        inverses = jax.lax.cond(state.step % inverse_every == 0, invert, lambda _: state.inverses, averages)
        scaled = jax.tree.map(lambda block, g: block.times(g).astype(g.dtype), inverses, updates, is_leaf=is_block)
        if norm_constraint is not None:
            sq_norm = optax.tree.vdot(scaled, updates)
            share = jnp.sqrt(norm_constraint / jnp.maximum(sq_norm, norm_constraint))
            scaled = jax.tree.map(lambda u: (share * u).astype(u.dtype), scaled)
        return scaled, KfacState(step, averages, inverses)

    def average(step, old, new):
        share = jnp.minimum(1 - 1 / step.astype(old.dtype), decay)
        return share * old + (1 - share) * new

    def invert(averages):
        return jax.tree.map(lambda block: block.inverse(damping), averages, is_leaf=is_block)

    return optax.GradientTransformationExtraArgs(init, update)


def kfac_step(
    model: Layer,
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    *,
    mode: Literal["expand", "reduce"] = "expand",
    fisher: Literal["sampled", "empirical"] = "sampled",
) -> Step[Scalar]:
    """`train_step` for an optimizer with `scale_by_kfac` in it: one forward pass, and the factors of its backward pass.

    Args:
      optimizer: an optax transformation with `scale_by_kfac` in it.
      mode: as for `kfac_factors`.
      fisher: "sampled" takes the curvature from a second backward pass, at targets drawn from the model's own
        distribution; "empirical" from the gradient's own factors.
    Returns:
      (state, x, target, weights=None, key=None) -> (state, value). The key, or without one the state's, is for the draw
      and for the noise of layers such as dropout.
    Raises:
      InputError: a loss without a `draw` where targets are sampled; at trace time, an optimizer without
        `scale_by_kfac`, and as `objective` and `kfac_factors`.
    """
    check_layer("kfac_step", model)
    check_choice("kfac_step", "mode", mode, ("expand", "reduce"))
    check_choice("kfac_step", "fisher", fisher, ("sampled", "empirical"))
    check_loss("kfac_step", loss)
    model, loss = through_logits(model, loss)
    draw = draw_of("kfac_step", loss) if fisher == "sampled" else None

    def step(state: TrainState, x: PyTree, target: PyTree, weights: Weights = None, key: Key = None):
        key = noise_key(state) if key is None else key
        if key is None:
            raise InputError("kfac_step: state must have a key, as init_state(params, optimizer, key) makes it")
        if not any(map(_is_kfac, jax.tree.leaves(state.opt_state, is_leaf=_is_kfac))):
            raise InputError("kfac_step: optimizer must have scale_by_kfac in it, got a state without a KfacState")
        params, x, target, weights = check_batches("kfac_step", state.params, x, target, weights)
        of_layers, of_draw = jax.random.split(key)
        prediction, residuals = model.forward(params, x, of_layers)
        losses, of_loss = loss.forward(prediction, target)
        factors = factors_of(model, loss, residuals, loss.backward(of_loss, jnp.ones_like(losses)), of_loss)
        seen = factors if draw is None else factors_of(model, loss, residuals, draw(of_loss, of_draw), of_loss)
        weights = mean_weights(losses) if weights is None else weights.astype(losses.dtype)
        grads, blocks = materialize(factors, weights), kfac_factors(seen, mode)
        updates, opt_state = optimizer.update(grads, state.opt_state, params, kfac_factors=blocks)
        params = optax.apply_updates(params, updates)
        return TrainState(params, opt_state, state.step + 1, state.key), weighted_sum(losses, weights)

    return step


def _is_kfac(state: object) -> bool:
    return isinstance(state, KfacState)


def _check_like(found: PyTree[Block] | None, like: PyTree[Block]) -> None:
    """The curvature of an update has the structure, shapes and dtypes that the state was made for."""
    if found is None:
        raise InputError("scale_by_kfac: kfac_factors must be given to update, as kfac_step gives them, got none")
    if jax.tree.structure(found) != jax.tree.structure(like):
        kinds = f"{jax.tree.structure(like)}, got {jax.tree.structure(found)}"
        raise InputError(f"scale_by_kfac: kfac_factors must have the structure of like, {kinds}")
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(like), strict=True):
        if (one.shape, one.dtype) != (two.shape, two.dtype):
            raise InputError(f"scale_by_kfac: kfac_factors must be like {describe(two)}, got {describe(one)}")
