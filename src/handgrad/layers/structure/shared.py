"""shared: the parameters of one layer at several places of a network."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Mapping

import jax
from jaxtyping import PyTree

from handgrad.checks import InputError, describe, path_name
from handgrad.factors import Coupled, Shared, is_factor, materialize
from handgrad.factors.coupled import coupled
from handgrad.layers.layer import Layer, check_layer, composed

__all__ = ["shared"]


def shared(model: Layer, places: Mapping[str, str]) -> Layer:
    """`model`, in which some places use the parameters of another: tied weights, siamese networks.

    Nothing is stored twice: at such a place params have (). The gradient of what is used several times is a Shared
    factor, whose per-example norms have the cross terms between the sites.

        >>> import handgrad as hg
        >>> step = hg.linear(4)
        >>> model = hg.shared(hg.chain(step, hg.tanh(), step), {"2": "0"})
        >>> params = model.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 4), "float32"))
        >>> jax.tree.map(lambda p: p.shape, params)
        (LinearParams(W=(4, 4), b=(4,)), (), ())

    Args:
      model: any layer.
      places: {place: source}, paths in the params of `model`: of a layer ("2", "encoder.0") or of an array in it
        ("head.W"). Both have params of one structure and the same shapes; several places may have one source.
    Raises:
      InputError: places that lie in one another, or a source that is a place itself; at trace time, params without
        such a place, or two places whose params are not alike.
    Derivation: docs/derivations/structure/shared.md
    """
    check_layer("shared", model)
    for one, other in itertools.combinations((*places, *dict.fromkeys(places.values())), 2):
        if one == other or one.startswith(f"{other}.") or other.startswith(f"{one}."):
            raise InputError(f"shared: places and sources must lie apart from each other, got {one!r} and {other!r}")

    def init(key, x):
        params = model.init(key, x)
        for place, source in places.items():
            _check_alike(place, _get(params, place), source, _get(params, source))
            params = _put(params, place, ())
        return params

    def forward(params, x, key=None):
        for place, source in places.items():
            if jax.tree.leaves(given := _get(params, place)):
                raise InputError(
                    f"shared: params.{place} must be (), they are those of {source}, got {describe(given)}"
                )
            params = _put(params, place, _get(params, source))
        return model.forward(params, x, key)

    def backward(residuals, dy):
        dx, dparams = model.backward(residuals, dy)
        for source in dict.fromkeys(places.values()):
            sites = [_get(dparams, at) for at in (source, *(place for place in places if places[place] == source))]
            dparams = _put(dparams, source, jax.tree.map(_sum_of_sites, *sites, is_leaf=is_factor))
        for place in places:
            dparams = _put(dparams, place, ())
        return dx, dparams

    return composed(init, forward, backward, model.couples)


def _sum_of_sites(*sites: PyTree) -> PyTree:
    """One gradient of all the uses of an array: factors are Shared, what is multiplied out already is added up."""
    if not all(map(is_factor, sites)):
        return functools.reduce(operator.add, map(materialize, sites))
    by = next((site.by for site in sites if isinstance(site, Coupled)), None)
    each = [site.factor if isinstance(site, Coupled) else site for site in sites]
    flat = itertools.chain.from_iterable(site.sites if isinstance(site, Shared) else (site,) for site in each)
    return coupled(Shared(tuple(flat)), by)


def _check_alike(place: str, params: PyTree, source: str, of_source: PyTree) -> None:
    """Two places that share have params of one structure and the same shapes."""
    (here, structure), (there, of_there) = map(jax.tree.flatten_with_path, (params, of_source))
    if structure != of_there:
        raise InputError(
            f"shared: params.{place} must have the structure of params.{source}, {of_there}, got {structure}"
        )
    for (path, one), (_, other) in zip(here, there, strict=True):
        if one.shape != other.shape:
            leaf = f".{path_name(path)}" if path else ""
            wanted = f"the shape of params.{source}{leaf}, {other.shape}"
            raise InputError(f"shared: params.{place}{leaf} must have {wanted}, got {one.shape}")


def _get(params: PyTree, path: str) -> PyTree:
    """What stands at a path."""
    while path:
        entries, _, name = _step(params, path)
        params, path = entries[name], path[len(name) + 1 :]
    return params


def _put(params: PyTree, path: str, value: PyTree) -> PyTree:
    """The same params with `value` at a path."""
    if not path:
        return value
    entries, rebuild, name = _step(params, path)
    entries[name] = _put(entries[name], path[len(name) + 1 :], value)
    return rebuild(entries.values())


def _step(params: PyTree, path: str) -> tuple[dict[str, PyTree], Callable[[Iterable[PyTree]], PyTree], str]:
    """The entries of `params` by name, what makes params of entries, and the name that `path` begins with."""
    found, structure = jax.tree.flatten_with_path(params, is_leaf=lambda inner: inner is not params)
    entries = {path_name(key): entry for key, entry in found if key}
    for name in entries:
        if path == name or path.startswith(f"{name}."):
            return entries, structure.unflatten, name
    names = ", ".join(entries) or describe(params)
    raise InputError(f"shared: expected params with a place {path!r}, got {names}")
