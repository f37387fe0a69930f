"""Errors of a tangent that is not like params, leaf by leaf."""

import jax
from jaxtyping import PyTree

from handgrad.checks import InputError, describe, path_name


def check_like_params(where: str, v: PyTree, params: PyTree) -> None:
    """`v` has params' structure and, leaf by leaf, their shapes."""
    found, wanted = _named(v), _named(params)
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            problem = f"got nothing at {name}" if name in wanted else f"got {describe(found[name])} at {name}"
            raise InputError(f"{where}: v must have params' structure, {problem}")
        if getattr(found[name], "shape", None) != wanted[name].shape:
            at = f" at {name}" if name else ""
            raise InputError(
                f"{where}: v must be like params, {describe(wanted[name])}{at}, got {describe(found[name])}"
            )
    if jax.tree.structure(v) != jax.tree.structure(params):
        raise InputError(
            f"{where}: v must have params' structure, {jax.tree.structure(params)}, got {jax.tree.structure(v)}"
        )


def _named(tree: PyTree) -> dict[str, PyTree]:
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
