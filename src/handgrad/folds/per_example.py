"""More than a gradient: what a backward pass knows of each example, as folds over the factors it left.

g_b is the gradient of example b's own loss. Every function here takes the factors of `value_and_factors` and multiplies
only what it is asked for; what each costs, and which way a factor chooses, `explain` says.

A parameter in or before a layer that couples the examples has no such gradient, and every function but `project` says
so; those behind it have, and can be asked for by themselves: `sq_norms(factors[2])`.
"""

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.checks import InputError, check_choice, describe, path_name
from handgrad.factors import Factor, is_factor
from handgrad.factors.coupled import coupling_in

Array = jax.Array


def sq_norms(factors: Any, *, per_leaf: bool = False, unit: str = "example", method: str = "auto") -> Any:
    """‖g_b‖² for each example, over all parameters; no g_b is written out for the whole batch.

    Args:
      factors: a pytree of factors.
      per_leaf: True keeps the parameters apart.
      unit: "example", or "token": of each token's part of g_b, the gradient that its δ alone makes.
      method: "gram" or "direct" wherever a factor knows both ways; "auto" takes the one of fewer operations.
    Returns:
      (batch,), or (batch × tokens,) in the order of the tokens; a pytree of these with per_leaf.
    Raises:
      InputError: an array or a Coupled factor in a factor's place; an unknown unit or method; tokens of a gradient that
        has none, or of parameters that see different tokens.
    Source: docs/factors.md (Goodfellow 2015; Bu et al. 2022)
    """
    check_choice("sq_norms", "unit", unit, ("example", "token"))
    check_choice("sq_norms", "method", method, ("auto", "gram", "direct"))

    def of_leaf(factor: Factor) -> Array:
        factor = factor if unit == "example" else factor.by_token()
        return factor.sq_norms(method if method in factor.norm_methods() else "auto")

    return _over_leaves("sq_norms", of_leaf, factors, per_leaf)


def per_example_grads(factors: Any) -> Any:
    """g_b written out: (batch, *shape) for each parameter. For small models and for tests.

    Raises:
      InputError: an array or a Coupled factor in a factor's place.
    """
    return map_factors("per_example_grads", lambda factor: factor.per_example(), factors)


def second_moment(factors: Any) -> Any:
    """Σ_b g_b∘g_b for each parameter; divided by the batch, it is the empirical Fisher's diagonal.

    Raises:
      InputError: an array or a Coupled factor in a factor's place.
    Source: docs/factors.md
    """
    return map_factors("second_moment", lambda factor: factor.second_moment(), factors)


def variance(factors: Any, *, ddof: int = 1) -> Any:
    """Σ_b (g_b − ḡ)∘(g_b − ḡ) / (batch − ddof) for each parameter, ḡ being the mean gradient.

    It is (Σ_b g_b∘g_b − batch ḡ∘ḡ) / (batch − ddof): where gradients hardly differ, a difference of like numbers, of
    which rounding leaves (ḡ / σ)² ε.

    Args:
      factors: a pytree of factors.
      ddof: 1 for the unbiased variance, 0 for the batch's own.
    Raises:
      InputError: an array or a Coupled factor in a factor's place; a batch of no more than ddof examples.
    Source: docs/factors.md
    """

    def of_leaf(factor: Factor) -> Array:
        _check_more_than("variance", ddof, factor)
        mean = factor.accumulate() / factor.batch
        return jnp.maximum(factor.second_moment() - factor.batch * mean**2, 0) / (factor.batch - ddof)

    check_choice("variance", "ddof", ddof, (0, 1))
    return map_factors("variance", of_leaf, factors)


def gram(factors: Any, *, per_leaf: bool = False) -> Any:
    """⟨g_b, g_c⟩ for every two examples: the (batch, batch) kernel of the gradients, whose diagonal is `sq_norms`.

    Args:
      factors: a pytree of factors.
      per_leaf: True keeps the parameters apart.
    Raises:
      InputError: an array or a Coupled factor in a factor's place.
    Source: docs/factors.md
    """
    return _over_leaves("gram", lambda factor: factor.gram(), factors, per_leaf)


def project(factors: Any, P: Mapping[str, Array]) -> Any:
    """Factors of Pᵀ g_b = (A P)ᵀ Δ: low-rank or sketched gradients, none of which ever was a large one.

    `materialize(project(factors, P))` is Pᵀ dW, (r, n_out), and adds up over batches in that space; every other fold
    works there too.

    Args:
      factors: a pytree of factors.
      P: path of a matrix, as "blocks.attention.query.W", -> (n_in, r), or (layers, n_in, r) for a stacked one. Other
        parameters stay as they are.
    Raises:
      InputError: an array in a factor's place; a path that there isn't; a P for what is no matrix, or of another number
        of rows.
    Source: docs/factors.md (Zhao et al. 2024)
    """
    check_factors("project", factors)
    paths = [path_name(path) for path, _ in jax.tree.leaves_with_path(factors, is_leaf=is_factor)]
    for name in P:
        if name not in paths:
            raise InputError(f"project: P must name parameters, as {paths[0]!r}, got {name!r}")

    def of_leaf(path: Any, factor: Factor) -> Factor:
        return factor.project(P[path_name(path)]) if path_name(path) in P else factor

    return jax.tree_util.tree_map_with_path(of_leaf, factors, is_leaf=is_factor)


class NoiseScale(NamedTuple):
    """How far the gradients of a batch agree, unbiased.

    Attributes:
      sq_norm: estimate of |G|², the true gradient's squared norm; below zero now and then, where noise is all there is.
      trace: estimate of tr Σ, the sum of the variances of one example's gradient.
      simple: B_simple = tr Σ / |G|², the batch size at which noise and signal are equal. A ratio of two estimates:
        average them over steps before dividing, as McCandlish et al. do.
    """

    sq_norm: Any
    trace: Any
    simple: Any


def noise_scale(factors: Any, *, per_leaf: bool = False) -> Any:
    """|G|², tr Σ and B_simple, from one batch of B examples.

        |G|² = (B |ḡ|² − s) / (B − 1)      tr Σ = B (s − |ḡ|²) / (B − 1)      s = mean of ‖g_b‖², ḡ the mean gradient

    Args:
      factors: a pytree of factors.
      per_leaf: True keeps the parameters apart.
    Returns:
      NoiseScale of scalars; a pytree of these with per_leaf.
    Raises:
      InputError: an array or a Coupled factor in a factor's place; a batch of one.
    Source: docs/factors.md (McCandlish et al. 2018, appendix A)
    """

    def of_leaf(factor: Factor) -> Array:
        """|G|² and tr Σ of one parameter: both are linear, so that those of all parameters add up."""
        _check_more_than("noise_scale", 1, factor)
        B = factor.batch
        of_mean, mean = jnp.sum((factor.accumulate() / B) ** 2), jnp.mean(factor.sq_norms())
        return jnp.stack([B * of_mean - mean, B * (mean - of_mean)]) / (B - 1)

    estimates = _over_leaves("noise_scale", of_leaf, factors, per_leaf)
    return jax.tree.map(lambda e: NoiseScale(e[0], e[1], e[1] / e[0]), estimates)


def _over_leaves(where: str, fold: Callable[[Factor], Array], factors: Any, per_leaf: bool) -> Any:
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


def map_factors(where: str, fold: Callable[[Factor], Any], factors: Any) -> Any:
    """`fold` of each factor, in the factor's place."""
    check_apart(where, factors)
    return jax.tree.map(fold, factors, is_leaf=is_factor)


def check_factors(where: str, factors: Any) -> None:
    """Every leaf is a factor: a fold can't look into a sum."""
    for path, leaf in jax.tree.leaves_with_path(factors, is_leaf=is_factor):
        if not is_factor(leaf):
            got = f"a gradient that is summed already, {describe(leaf)}"
            raise InputError(f"{where}: {path_name(path) or 'the leaf'} must be a factor, got {got}")


def check_apart(where: str, factors: Any) -> None:
    """Every leaf is a factor, of a parameter that lies behind whatever couples the examples."""
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
