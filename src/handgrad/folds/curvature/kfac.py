"""K-FAC: the two sides of a factor, each with its second moment, in place of the curvature of their product."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from handgrad import meshes
from handgrad.checks import check_choice
from handgrad.factors import Correlation, Factor, Outer, Recomputed, Shared
from handgrad.factors.base import accumulator, as_tokens
from handgrad.factors.windows import patches
from handgrad.folds.curvature.blocks import Diagonal, Kronecker, is_block
from handgrad.folds.curvature.roots import mean_over_the_root
from handgrad.folds.per_example import map_factors
from handgrad.layers import Layer, Loss

Array = jax.Array

MODES = ("expand", "reduce")


def kfac_factors(factors: Any, mode: str = "expand") -> Any:
    """1/N Σ_b g_b g_bᵀ, the empirical Fisher, parameter by parameter: A ⊗ G for a weight matrix, else its diagonal.

    With N examples of T_b tokens each (a layer without tokens has T_b = 1), a_bt a row of the factor's left side and
    δ_bt one of its right side:

        expand    A = 1/(Σ_b T_b) Σ_b Σ_t a_bt a_btᵀ     G = 1/N Σ_b Σ_t δ_bt δ_btᵀ
        reduce    A = 1/N Σ_b ā_b ā_bᵀ                   G = 1/N Σ_b δ̄_b δ̄_bᵀ
                  ā_b = 1/T_b Σ_t a_bt                   δ̄_b = Σ_t δ_bt

    Padding does not count: steps past the length of `Sequences` or `ctc_loss`, and tokens with the label ignore_index,
    unless another token's loss reads them. An example without a token that counts is left out of A's mean.

    "expand" takes each token for an example of its own: where each has a loss of its own. "reduce" takes the example's
    mean input and summed cotangent: where tokens are pooled before the loss. For T_b = 1 they are one, and exact for a
    batch of one.

    A dense, projection or recurrent weight (`Outer`) and a kernel (`Correlation`: a token for each output, its patch
    the input) have A and G; so has a weight that is used at several such places (`Shared`), each use counting as
    further tokens (Martens, Ba & Johnson 2018), and each layer under `repeat` (`Stacked`). A `Recomputed` weight's
    cotangents are written out for it. Biases, scales, tables and
    whatever else have the diagonal of the same matrix, which is exact: `empirical_fisher_diagonal`. The curvature
    between two parameters, a layer's weight and its bias too, is left out.

    Args:
      factors: of `value_and_factors` for the empirical Fisher; of `sampled_factors` for an estimate of the true one.
      mode: "expand" or "reduce".
    Returns:
      A `Kronecker` or a `Diagonal` in each factor's place, in float32 at least.
    Raises:
      InputError: another mode; a gradient that its layer has summed already, with its name.
    Derivation: docs/curvature.md (Martens & Grosse 2015, https://arxiv.org/abs/1503.05671; Eschenhagen et al. 2023,
      https://arxiv.org/abs/2311.00636)
    """
    check_choice("kfac_factors", "mode", mode, MODES)
    return map_factors("kfac_factors", partial(_block, mode=mode), factors)


def kflr_factors(
    model: Layer,
    loss: Loss,
    params: Any,
    x: Any,
    target: Any,
    mode: str = "expand",
    draw_key: Array | None = None,
    samples: int | None = None,
    key: Array | None = None,
) -> Any:
    """K-FAC of the GGN 1/N Σ_b J_bᵀ H_b J_b: `kfac_factors` of each column of a root of the loss's Hessian, added up.

    With H_b = S_b S_bᵀ, J_bᵀ H_b J_b = Σ_c g_bc g_bcᵀ, where g_bc = J_bᵀ s_bc is what the backward pass makes of column
    c. A is the mean over the columns, which it mostly doesn't depend on, and G the sum. For `softmax_cross_entropy`
    and `squared_error` the GGN is the true Fisher.

    The columns go through the backward pass one after the other, and there are as many as the prediction has elements
    for one example: so many times the backward pass' time, once its memory. With `samples`, it takes so many draws of
    `sampled_factors` instead, an unbiased estimate of G: K-FAC as it was published.

    Args:
      model, loss: as `objective`; the loss must have a `root`, or a `draw` where there are samples.
      params, x, target: as `objective`.
      mode: "expand" or "reduce".
      draw_key, samples, key: as `ggn_diagonal`.
    Returns, Raises: as `kfac_factors` and `ggn_diagonal`.
    Derivation: docs/curvature.md (Botev, Ritter & Barber 2017, https://arxiv.org/abs/1706.03662)
    """
    check_choice("kflr_factors", "mode", mode, MODES)

    def fold(factors):
        return map_factors("kflr_factors", partial(_block, mode=mode), factors)

    mean, columns = mean_over_the_root("kflr_factors", model, loss, params, x, target, draw_key, samples, key, fold)
    return jax.tree.map(lambda block: _scaled(block, columns), mean, is_leaf=is_block)


def _scaled(block: Kronecker | Diagonal, count: int) -> Kronecker | Diagonal:
    """`count` times the block."""
    return (
        Diagonal(count * block.d) if isinstance(block, Diagonal) else Kronecker(block.A, count * block.G, block.groups)
    )


def _block(factor: Factor, mode: str) -> Kronecker | Diagonal:
    """The curvature of one parameter."""
    if isinstance(factor, Recomputed):
        factor = factor.with_sides()
    layers = factor.layers()
    if layers is not None:
        return jax.vmap(partial(_block, mode=mode))(layers)
    if isinstance(factor, Outer):
        return _kronecker(as_tokens(factor.A), as_tokens(factor.Delta), _seen(factor), mode)
    if isinstance(factor, Correlation):
        return _of_kernel(factor, mode)
    if isinstance(factor, Shared) and all(isinstance(site, Outer) for site in factor.sites):
        outers = [site for site in factor.sites if isinstance(site, Outer)]
        A, Delta = (
            jnp.concatenate([as_tokens(side) for side in sides], axis=1)
            for sides in ([one.A for one in outers], [one.Delta for one in outers])
        )
        return _kronecker(A, Delta, _seen_at_all(outers), mode)
    return Diagonal(factor.second_moment() / factor.batch)


def _of_kernel(factor: Correlation, mode: str) -> Kronecker:
    """Patches in A's place: (batch, outputs, taps × n_in), or group by group."""
    groups, Delta = factor.window.groups, as_tokens(factor.Delta)
    P = patches(factor.X, factor.window)
    taps, n_in = P.shape[-2], P.shape[-1] // groups

    def by_group(P: Array) -> Array:
        P = jnp.moveaxis(P.reshape(*Delta.shape[:2], taps, groups, n_in), 3, 1)
        return P.reshape(len(P), groups, Delta.shape[1], taps * n_in)

    P = jnp.moveaxis(meshes.along_batch(by_group, P), 1, 0)
    if groups == 1:
        return _kronecker(P[0], Delta, _seen(factor), mode)
    Delta = jnp.moveaxis(Delta.reshape(*Delta.shape[:2], groups, -1), 2, 0)
    pairs = jax.vmap(lambda P, Delta: _kronecker(P, Delta, _seen(factor), mode))(P, Delta)
    return Kronecker(pairs.A, pairs.G, groups)


def _seen(factor: Outer | Correlation) -> Array | None:
    """Which tokens count, (batch, tokens); None for all."""
    return None if factor.seen is None else as_tokens(jnp.expand_dims(factor.seen, -1))[..., 0].astype(bool)


def _seen_at_all(sites: list[Outer]) -> Array | None:
    """The same of several sites, their tokens one behind the other."""
    if all(site.seen is None for site in sites):
        return None
    of_each = ((_seen(site), as_tokens(site.A).shape[:2]) for site in sites)
    return jnp.concatenate([jnp.ones(shape, bool) if seen is None else seen for seen, shape in of_each], axis=1)


def _kronecker(A: Array, Delta: Array, seen: Array | None, mode: str) -> Kronecker:
    """The pair of A (batch, tokens, n_in) and Delta (batch, tokens, n_out), of the tokens that count."""
    batch, tokens, _ = A.shape
    of_each, rows, examples = tokens, batch * tokens, batch
    if seen is not None:
        # A token that has no loss counts where it has a part in the loss of another.
        seen = seen | (jnp.any(A != 0, axis=2) & jnp.any(Delta != 0, axis=2))
        A, Delta = (jnp.where(jnp.expand_dims(seen, 2), side, 0) for side in (A, Delta))
        of_each = jnp.sum(seen, axis=1)
        rows, examples = (jnp.maximum(jnp.sum(n), 1) for n in (of_each, of_each > 0))
        of_each = jnp.expand_dims(jnp.maximum(of_each, 1), (1, 2))
    if mode == "reduce":
        A = jnp.sum(A, axis=1, keepdims=True, dtype=accumulator(A)) / of_each
        Delta = jnp.sum(Delta, axis=1, keepdims=True, dtype=accumulator(Delta))
        rows = examples
    return Kronecker(_gram(A) / rows, _gram(Delta) / batch)


def _gram(A: Array) -> Array:
    """Σ a aᵀ over examples and tokens."""
    rows = A.reshape(-1, A.shape[-1])
    return meshes.einsum("ri,rj->ij", rows, rows, accumulator(rows))
