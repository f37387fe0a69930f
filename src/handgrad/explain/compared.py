"""Gradients by other means: jax.grad, and a difference quotient."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, PyTree

from handgrad.checks import InputError, path_name
from handgrad.explain.places import Place, replaced
from handgrad.explain.worked import Checked


def checks(
    value: Callable[..., Array], params: PyTree, x: Array, target: Array, found: Sequence[Place]
) -> list[dict[str, Checked]]:
    """For each layer, its parameters' gradients by jax.grad, and one entry of each as a central difference."""
    program = jax.jit(value)
    try:
        grads = jax.jit(jax.grad(value))(params, x, target)
    except TypeError as error:
        raise InputError(f"explain: params must be floating-point arrays, and jax.grad says: {error}") from None
    compared = []
    for place in found:
        of_layer = {}
        for (path, p), g in zip(
            jax.tree.leaves_with_path(place.params(params)), jax.tree.leaves(place.params(grads)), strict=True
        ):
            g = np.asarray(g)
            index = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(g)), g.shape))

            def at(entry: float, place: Place = place, path: tuple = path, index: tuple = index) -> float:
                mine = jax.tree.map_with_path(
                    lambda where, a: _changed(a, index, entry) if where == path else a, place.params(params)
                )
                return float(program(replaced(params, place.path, mine), x, target))

            of_layer[path_name(path)] = Checked(g, index, central_difference(at, float(p[index])))
        compared.append(of_layer)
    return compared


def central_difference(value: Callable[[float], float], entry: float) -> float:
    """(C(w + h) − C(w − h)) / 2h, with the step h that balances rounding and curvature in float64."""
    h = max(1.0, abs(entry)) * 2.0**-17
    above, below = entry + h, entry - h
    return (value(above) - value(below)) / (above - below)


def _changed(array: Array, index: tuple[int, ...], entry: float) -> np.ndarray:
    changed = np.array(array)
    changed[index] = entry
    return changed
