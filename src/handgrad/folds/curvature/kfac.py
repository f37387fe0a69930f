"""K-FAC: the second moments of a factor's two sides in place of the curvature of their product."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from handgrad import meshes
from handgrad.checks import check_choice
from handgrad.factors import Correlation, Factor, Outer, Recomputed, Shared
from handgrad.factors.base import accumulator, as_tokens
from handgrad.factors.windows import patches
from handgrad.folds.curvature.blocks import Diagonal, Kronecker, is_block
from handgrad.folds.curvature.roots import mean_over_the_root
from handgrad.folds.per_example import map_factors
from handgrad.layers import Layer, Loss

Mode = Literal["expand", "reduce"]
MODES = ("expand", "reduce")


def kfac_factors(factors: PyTree[Factor], mode: Mode = "expand") -> PyTree[Kronecker | Diagonal]:
    """1/N Σ_b g_b g_bᵀ, the empirical Fisher, parameter by parameter: A ⊗ G for a weight matrix, else its diagonal.

    With N examples of T_b tokens each (a layer without tokens has T_b = 1), a_bt a row of the factor's left side and
    δ_bt one of its right side:

        expand    A = 1/(Σ_b T_b) Σ_b Σ_t a_bt a_btᵀ     G = 1/N Σ_b Σ_t δ_bt δ_btᵀ
        reduce    A = 1/N Σ_b ā_b ā_bᵀ                   G = 1/N Σ_b δ̄_b δ̄_bᵀ
                  ā_b = 1/T_b Σ_t a_bt                   δ̄_b = Σ_t δ_bt

    Padding does not count: steps past the length of `Sequences` or `ctc_loss`, and tokens with the label ignore_index,
    unless another token's loss depends on them. An example without a token that counts is left out of A's mean.

    "expand" treats each token as an example: right where each has its own loss. "reduce" takes the example's mean input
    and summed cotangent: right where tokens are pooled before the loss. For T_b = 1 the two are equal, and exact for a
    batch of one.

    A dense, projection or recurrent weight (`Outer`) and a kernel (`Correlation`: a token for each output, its im2col
    patch the input) have A and G; so does a weight with several such uses (`Shared`), each use adding tokens (Martens,
    Ba & Johnson 2018), and each layer under `repeat` (`Stacked`). A `Recomputed` weight's cotangents are materialized.
    Biases, scales, tables and all others have the diagonal of the same matrix, which is exact:
    `empirical_fisher_diagonal`. The curvature between two parameters, also a layer's weight and bias, is left out.

    Args:
      factors: of `value_and_factors` for the empirical Fisher; of `sampled_factors` for an estimate of the true one.
    Returns:
      A `Kronecker` or a `Diagonal` in each factor's place, in float32 at least.
    Derivation: docs/curvature.md (Martens & Grosse 2015, https://arxiv.org/abs/1503.05671; Eschenhagen et al. 2023,
      https://arxiv.org/abs/2311.00636)
    """
    check_choice("kfac_factors", "mode", mode, MODES)
    return map_factors("kfac_factors", partial(_block, mode=mode), factors)


def kflr_factors(
    model: Layer,
    loss: Loss,
    params: PyTree,
    x: PyTree,
    target: PyTree,
    mode: Mode = "expand",
    draw_key: PRNGKeyArray | None = None,
    samples: int | None = None,
    key: PRNGKeyArray | None = None,
) -> PyTree[Kronecker | Diagonal]:
    """K-FAC of the GGN 1/N Σ_b J_bᵀ H_b J_b: `kfac_factors` of each column of a root of the loss's Hessian, added up.

    With H_b = S_b S_bᵀ, J_bᵀ H_b J_b = Σ_c g_bc g_bcᵀ, where g_bc = J_bᵀ s_bc is column c pulled back. A is the mean
    over the columns, which it mostly doesn't depend on, and G the sum. For `softmax_cross_entropy` and `squared_error`
    the GGN is the true Fisher.

    The columns are pulled back one after the other, one for each element of an example's prediction: that many times
    the time of a backward pass, and the memory of one. With `samples`, as many draws of `sampled_factors` take their
    place, an unbiased estimate of G: K-FAC as it was published.

    Args, Returns, Raises: as `ggn_diagonal` and `kfac_factors`.
    Derivation: docs/curvature.md (Botev, Ritter & Barber 2017, https://arxiv.org/abs/1706.03662)
    """
    check_choice("kflr_factors", "mode", mode, MODES)

    def fold(factors: PyTree[Factor]) -> PyTree[Kronecker | Diagonal]:
        return map_factors("kflr_factors", partial(_block, mode=mode), factors)

    mean, columns = mean_over_the_root("kflr_factors", model, loss, params, x, target, draw_key, samples, key, fold)
    return jax.tree.map(lambda block: _scaled(block, columns), mean, is_leaf=is_block)


def _scaled(block: Kronecker | Diagonal, count: int) -> Kronecker | Diagonal:
    """The block times `count`."""
    return (
        Diagonal(count * block.d) if isinstance(block, Diagonal) else Kronecker(block.A, count * block.G, block.groups)
    )


def _block(factor: Factor, mode: Mode) -> Kronecker | Diagonal:
    """The curvature of one parameter."""
    if isinstance(factor, Recomputed):
        factor = factor.with_sides()
    layers = factor.layers()
    if layers is not None:
        return jax.vmap(partial(_block, mode=mode))(layers)
    if isinstance(factor, Outer):
        return _kronecker(as_tokens(factor.A), as_tokens(factor.Delta), _mask(factor), mode)
    if isinstance(factor, Correlation):
        return _of_kernel(factor, mode)
    if isinstance(factor, Shared) and all(isinstance(site, Outer) for site in factor.sites):
        outers = [site for site in factor.sites if isinstance(site, Outer)]
        A, Delta = (
            jnp.concatenate([as_tokens(side) for side in sides], axis=1)
            for sides in ([one.A for one in outers], [one.Delta for one in outers])
        )
        return _kronecker(A, Delta, _joined_mask(outers), mode)
    return Diagonal(factor.second_moment() / factor.batch)


def _of_kernel(factor: Correlation, mode: Mode) -> Kronecker:
    """Patches in A's place: (batch, outputs, taps × n_in), or by group (im2col)."""
    groups, Delta = factor.window.groups, as_tokens(factor.Delta)
    P = patches(factor.X, factor.window)
    taps, n_in = P.shape[-2], P.shape[-1] // groups

    def by_group(P: Array) -> Array:
        P = jnp.moveaxis(P.reshape(*Delta.shape[:2], taps, groups, n_in), 3, 1)
        return P.reshape(len(P), groups, Delta.shape[1], taps * n_in)

    P = jnp.moveaxis(meshes.along_batch(by_group, P), 1, 0)
    if groups == 1:
        return _kronecker(P[0], Delta, _mask(factor), mode)
    Delta = jnp.moveaxis(Delta.reshape(*Delta.shape[:2], groups, Delta.shape[2] // groups), 2, 0)
    pairs = jax.vmap(lambda P, Delta: _kronecker(P, Delta, _mask(factor), mode))(P, Delta)
    return Kronecker(pairs.A, pairs.G, groups)


def _mask(factor: Outer | Correlation) -> Bool[Array, "batch tokens"] | None:
    """Which tokens count; None for all."""
    return None if factor.mask is None else as_tokens(jnp.expand_dims(factor.mask, -1))[..., 0].astype(bool)


def _joined_mask(sites: list[Outer]) -> Bool[Array, "batch tokens"] | None:
    """The same for several sites, their tokens concatenated."""
    if all(site.mask is None for site in sites):
        return None
    of_each = ((_mask(site), as_tokens(site.A).shape[:2]) for site in sites)
    return jnp.concatenate([jnp.ones(shape, bool) if seen is None else seen for seen, shape in of_each], axis=1)


def _kronecker(
    A: Float[Array, "batch tokens n_in"],
    Delta: Float[Array, "batch tokens n_out"],
    seen: Bool[Array, "batch tokens"] | None,
    mode: Mode,
) -> Kronecker:
    """The pair of A and Delta, of the tokens that count."""
    batch, tokens, _ = A.shape
    of_each: Array | int = tokens
    rows: Array | int = batch * tokens
    examples: Array | int = batch
    if seen is not None:
        # A token without a loss counts where another's loss depends on it.
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
