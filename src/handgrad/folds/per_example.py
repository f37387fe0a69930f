"""More than a gradient: what one backward pass knows of each example, as folds over its factors.

g_b is the gradient of example b's own loss. Every function here takes the factors of `value_and_factors`, a pytree, and
multiplies only what it needs; what each costs, and which method a factor chooses, `costs` says.

An InputError names a parameter whose leaf is an array, a gradient summed already, or whose factor is Coupled: in or
before a layer that couples the examples there is no gradient of one example (`project` alone allows it). The factors
behind such a layer can be folded by themselves: `sq_norms(factors[2])`.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from handgrad.checks import InputError, check_choice, describe, path_name
from handgrad.factors import Factor, is_factor
from handgrad.factors.coupled import coupling_in


def sq_norms(
    factors: PyTree[Factor],
    *,
    per_leaf: bool = False,
    unit: Literal["example", "token"] = "example",
    method: Literal["auto", "gram", "direct"] = "auto",
) -> PyTree[Float[Array, " batch"]]:
    """‖g_b‖² for each example over all parameters, the ghost norm: no g_b is materialized for the whole batch.

    >>> import jax.numpy as jnp, handgrad as hg
    >>> hg.sq_norms({"W": hg.factors.Outer(jnp.ones((2, 3)), jnp.ones((2, 4)))})
    Array([12., 12.], dtype=float32)

    Args:
      per_leaf: True keeps the parameters apart.
      unit: "token" for the norms of each token's part of g_b, the gradient that its δ alone makes.
      method: "gram" or "direct" wherever a factor knows both; "auto" takes the one of fewer operations.
    Returns:
      (batch,), or (batch × tokens,) in the order of the tokens; a pytree of these with per_leaf.
    Raises:
      InputError: tokens of a gradient that is no sum over tokens, or of parameters with different tokens.
    Source: docs/factors.md (Goodfellow 2015; Bu et al. 2022)
    """
    check_choice("sq_norms", "unit", unit, ("example", "token"))
    check_choice("sq_norms", "method", method, ("auto", "gram", "direct"))

    def of_leaf(factor: Factor) -> Array:
        factor = factor if unit == "example" else factor.by_token()
        return factor.sq_norms(method if method in factor.norm_methods() else "auto")

    return _over_leaves("sq_norms", of_leaf, factors, per_leaf)


def per_example_grads(factors: PyTree[Factor]) -> PyTree[Float[Array, " batch *shape"]]:
    """g_b materialized: (batch, *shape) for each parameter. For small models and for tests."""
    return map_factors("per_example_grads", lambda factor: factor.per_example(), factors)


def second_moment(factors: PyTree[Factor]) -> PyTree[Array]:
    """Σ_b g_b∘g_b for each parameter; divided by the batch, it is the empirical Fisher's diagonal."""
    return map_factors("second_moment", lambda factor: factor.second_moment(), factors)


def variance(factors: PyTree[Factor], *, ddof: Literal[0, 1] = 1) -> PyTree[Array]:
    """Σ_b (g_b − ḡ)∘(g_b − ḡ) / (batch − ddof) for each parameter, ḡ being the mean gradient.

    Computed as (Σ_b g_b∘g_b − batch ḡ∘ḡ) / (batch − ddof): where gradients hardly differ, cancellation leaves a
    relative error of (ḡ / σ)² ε.

    Args:
      ddof: 1 for the unbiased variance, 0 for the batch's own.
    Raises:
      InputError: a batch of no more than ddof examples.
    Source: docs/factors.md
    """

    def of_leaf(factor: Factor) -> Array:
        _check_more_than("variance", ddof, factor)
        mean = factor.accumulate() / factor.batch
        return jnp.maximum(factor.second_moment() - factor.batch * mean**2, 0) / (factor.batch - ddof)

    check_choice("variance", "ddof", ddof, (0, 1))
    return map_factors("variance", of_leaf, factors)


def gram(factors: PyTree[Factor], *, per_leaf: bool = False) -> PyTree[Float[Array, "batch batch"]]:
    """⟨g_b, g_c⟩ for every two examples: the kernel of the gradients, whose diagonal is `sq_norms`.

    Args:
      per_leaf: True keeps the parameters apart.
    Source: docs/factors.md
    """
    return _over_leaves("gram", lambda factor: factor.gram(), factors, per_leaf)


def project(factors: PyTree[Factor], P: Mapping[str, Float[Array, "... n_in r"]]) -> PyTree[Factor]:
    """Factors of Pᵀ g_b = (A P)ᵀ Δ: low-rank or sketched gradients, whose full-size form is never computed.

    `materialize(project(factors, P))` is Pᵀ dW, (r, n_out), and accumulates over batches in that space; every other
    fold works there too.

    Args:
      P: path of a matrix, as "blocks.attention.query.W", -> (n_in, r), or (layers, n_in, r) for a stacked one. Other
        parameters stay as they are.
    Raises:
      InputError: a path that names no parameter; a P for a parameter that is no matrix, or of another number of rows.
    Source: docs/factors.md (Zhao et al. 2024)
    """
    check_factors("project", factors)
    paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(factors, is_leaf=is_factor)]
    for name in P:
        if name not in paths:
            raise InputError(f"project: P must name parameters, as {paths[0]!r}, got {name!r}")

    def of_leaf(path: jax.tree_util.KeyPath, factor: Factor) -> Factor:
        return factor.project(P[path_name(path)]) if path_name(path) in P else factor

    return jax.tree_util.tree_map_with_path(of_leaf, factors, is_leaf=is_factor)


class NoiseScale(NamedTuple):
    """The gradient noise scale of a batch, from unbiased estimates.

    Attributes:
      sq_norm: estimate of |G|², the true gradient's squared norm; it can be negative where noise dominates.
      trace: estimate of tr Σ, the sum of the variances of one example's gradient.
      simple: B_simple = tr Σ / |G|², the batch size at which noise and signal are equal. A ratio of two estimates:
        average them over steps before dividing, as McCandlish et al. do.
    """

    sq_norm: Float[Array, ""]
    trace: Float[Array, ""]
    simple: Float[Array, ""]


def noise_scale(factors: PyTree[Factor], *, per_leaf: bool = False) -> PyTree[NoiseScale]:
    """|G|², tr Σ and B_simple, from one batch of B examples.

        |G|² = (B |ḡ|² − s) / (B − 1)      tr Σ = B (s − |ḡ|²) / (B − 1)      s = mean of ‖g_b‖², ḡ the mean gradient

    Args:
      per_leaf: True keeps the parameters apart: a pytree of NoiseScale.
    Raises:
      InputError: a batch of one.
    Source: docs/factors.md (McCandlish et al. 2018, appendix A)
    """

    def of_leaf(factor: Factor) -> Array:
        """|G|² and tr Σ of one parameter: both are linear, so that the parameters' add up."""
        _check_more_than("noise_scale", 1, factor)
        B = factor.batch
        of_mean, mean = jnp.sum((factor.accumulate() / B) ** 2), jnp.mean(factor.sq_norms())
        return jnp.stack([B * of_mean - mean, B * (mean - of_mean)]) / (B - 1)

    estimates = _over_leaves("noise_scale", of_leaf, factors, per_leaf)
    return jax.tree.map(lambda e: NoiseScale(e[0], e[1], e[1] / e[0]), estimates)


def _over_leaves(where: str, fold: Callable[[Factor], Array], factors: PyTree[Factor], per_leaf: bool) -> PyTree[Array]:
    """The fold of each parameter, or their sum."""
    tree = map_factors(where, fold, factors)
    if per_leaf:
        return tree
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise InputError(f"{where}: expected factors of a model with parameters, got none")
    sizes = [len(leaf) for leaf in leaves]
    if len(set(sizes)) > 1:
        expected = f"every parameter must see the same tokens, {sizes[0]} of them"
        raise InputError(f"{where}: {expected}, got {next(size for size in sizes if size != sizes[0])}")
    return functools.reduce(operator.add, leaves)


def map_factors(where: str, fold: Callable[[Factor], PyTree], factors: PyTree[Factor]) -> PyTree:
    """`fold` of each factor, in the factor's place."""
    check_apart(where, factors)
    return jax.tree.map(fold, factors, is_leaf=is_factor)


def check_factors(where: str, factors: PyTree[Factor]) -> None:
    """Every leaf is a factor: a sum no longer knows its examples."""
    for path, leaf in jax.tree.leaves_with_path(factors, is_leaf=is_factor):
        if not is_factor(leaf):
            got = f"a gradient that is summed already, {describe(leaf)}"
            raise InputError(f"{where}: {path_name(path) or 'the leaf'} must be a factor, got {got}")


def check_apart(where: str, factors: PyTree[Factor]) -> None:
    """Every leaf is a factor, and none is Coupled."""
    check_factors(where, factors)
    for path, leaf in jax.tree.leaves_with_path(factors, is_leaf=is_factor):
        by = coupling_in(leaf)
        if by is not None:
            name = path_name(path) or "the leaf"
            raise InputError(f"{where}: {name} must have a gradient of each example, but {by}")


def _check_more_than(where: str, least: int, factor: Factor) -> None:
    if factor.batch <= least:
        examples = "1 example" if least == 1 else f"{least} examples"
        raise InputError(f"{where}: the batch must have more than {examples}, got {factor.batch}")
