"""recomputed: a layer that keeps its input alone, and runs its forward pass again in the backward pass."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from handgrad.checks import check_residuals
from handgrad.layers.layer import Layer, check_layer, composed
from handgrad.layers.sums import LoopResiduals

__all__ = ["recomputed"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RecomputedResiduals(LoopResiduals):
    """The forward pass's arguments, by reference; the key too, so that noise is the same."""

    params: PyTree
    x: PyTree
    key: PRNGKeyArray | None


def recomputed(layer: Layer, *, prevent_cse: bool = True) -> Layer:
    """`layer`, recomputed in the backward pass: rematerialization, as by jax.checkpoint (remat).

    Its residuals are live during its own backward pass alone: of n such layers the inputs are kept, and the residuals
    of one at a time, at the cost of a second forward pass. That draws the same noise from the same key.

        >>> import handgrad as hg
        >>> block = hg.residual(hg.chain(hg.linear(64), hg.gelu(), hg.linear(8)))
        >>> model = hg.chain(hg.recomputed(block), hg.recomputed(block), hg.linear(1))

    Args:
      layer: any layer. For n of one form there is `repeat(layer, n, residuals="recompute")`.
      prevent_cse: as jax.checkpoint's. False where the two forward passes are in different loops, so that the compiler
        can't merge them.
    Derivation: docs/derivations/structure/recomputed.md
    """
    check_layer("recomputed", layer)

    def forward(params, x, key=None):
        y, _ = layer.forward(params, x, key)
        return y, RecomputedResiduals(params, x, key)

    def backward(residuals, dy):
        residuals = check_residuals("recomputed", residuals, RecomputedResiduals)
        x, key = residuals.x, residuals.key
        if prevent_cse:
            x, key = _after(dy, (x, key))
        _, kept = layer.forward(residuals.params, x, key)
        return layer.backward(residuals.told(kept), dy)

    return composed(layer.init, forward, backward, layer.couples)


def _after(dy: PyTree, x: PyTree) -> PyTree:
    """x, as an array that the compiler can't have before dy.

    It merges equal operations on equal arrays (common subexpression elimination), and would keep what the forward pass
    has computed rather than compute it again. On CPU, XLA drops optimization_barrier before it merges, so that
    jax.checkpoint saves nothing there outside of loops. A select prevents it there, on a condition of dy that always
    holds: no number is below −∞, but XLA doesn't conclude that.
    """
    x, dy = jax.lax.optimization_barrier((x, dy))
    if jax.default_backend() != "cpu":
        return x
    never = jnp.max(jax.tree.leaves(dy)[0], initial=-jnp.inf) < -jnp.inf
    return jax.tree.map(lambda a: jnp.where(never, jnp.zeros_like(a), a), x)
