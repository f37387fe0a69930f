"""What layers around linear attention share: projections of one input, what mixes them over time, and the output's."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_array, check_count, check_params, check_residuals, describe
from handgrad.layers.layer import Layer, composed, made_by, placed
from handgrad.layers.linear.linear import Initializer, linear

Tokens = Float[Array, "batch tokens n"]
Heads = Float[Array, "batch tokens heads n"]
Params = Any  # a NamedTuple with a field for each of the layers inside


class Sizes(NamedTuple):
    """Of an input and its heads: its width, and the features of all keys, and of all values, side by side."""

    width: int
    keys: int
    values: int


class MixingResiduals(NamedTuple):
    """x: the input; projections, mixer, output: what each of the layers inside keeps. x is theirs, by reference."""

    x: Tokens
    projections: dict[str, PyTree]
    mixer: PyTree
    output: PyTree


def mixing(
    where: str,
    kind: Any,
    sizes: Callable[[int], Sizes],
    projections: Callable[[Sizes], Mapping[str, Layer]],
    mixer: Layer,
    init_W: Initializer,
) -> Layer:
    """Y = mixer(projections of X) W: a layer of tokens, (batch, tokens, width) to the same.

    Args:
      where: the layer's name, for errors.
      kind: its parameters: a field for each projection, for "mixer" where it has parameters, and "output".
      sizes: of a width.
      projections: the layers of X, by name.
      mixer: a layer of a tuple, the projections in their order.
      init_W: initializer of the output's weight.
    """
    mixer = placed("mixer", mixer)

    def parts(x: Array | jax.ShapeDtypeStruct) -> tuple[dict[str, Layer], Layer, Sizes]:
        check_array(where, "x", x)
        if len(x.shape) != 3:
            raise InputError(f"{where}: x must have shape (batch, tokens, features), got {describe(x)}")
        of_x = sizes(x.shape[2])
        named = {name: placed(name, layer) for name, layer in projections(of_x).items()}
        return named, placed("output", linear(of_x.width, bias=False, init_W=init_W)), of_x

    def init(key: PRNGKeyArray, x: Tokens | jax.ShapeDtypeStruct) -> Params:
        named, output, of_x = parts(x)
        keys = iter(jax.random.split(key, len(named) + 2))
        found: dict[str, Any] = {name: layer.init(next(keys), x) for name, layer in named.items()}
        shapes = {name: jax.eval_shape(layer.forward, found[name], x)[0] for name, layer in named.items()}
        if "mixer" in kind._fields:
            found["mixer"] = mixer.init(next(keys), tuple(shapes.values()))
        merged = jax.ShapeDtypeStruct((*x.shape[:2], of_x.values), x.dtype)
        return kind(**found, output=output.init(next(keys), merged))

    def forward(params: Params, x: Tokens, key: PRNGKeyArray | None = None) -> tuple[Tokens, MixingResiduals]:
        check_params(where, params, kind)
        named, output, _ = parts(x)
        made = {name: layer.forward(getattr(params, name), x) for name, layer in named.items()}
        Y, kept = mixer.forward(getattr(params, "mixer", ()), tuple(A for A, _ in made.values()))
        y, of_output = output.forward(params.output, Y)
        return y, MixingResiduals(x, {name: residuals for name, (_, residuals) in made.items()}, kept, of_output)

    def backward(residuals: MixingResiduals, dy: Tokens) -> tuple[Tokens, Params]:
        x, kept, of_mixer, of_output = check_residuals(where, residuals, MixingResiduals)
        named, output, _ = parts(x)
        dY, doutput = output.backward(of_output, dy)
        dA, dmixer = mixer.backward(of_mixer, dY)
        back = {name: layer.backward(kept[name], d) for (name, layer), d in zip(named.items(), dA, strict=True)}
        found: dict[str, Any] = {name: dparams for name, (_, dparams) in back.items()}
        if "mixer" in kind._fields:
            found["mixer"] = dmixer
        dx, *others = (dx for dx, _ in back.values())
        return sum(others, start=dx), kind(**found, output=doutput)

    return made_by(where, composed(init, forward, backward))


def split_sizes(
    where: str, heads: int, head_size: int | None, value_size: int | None, share: int = 1
) -> Callable[[int], Sizes]:
    """Sizes for a width: a head's keys have head_size features, or the width / (share heads), its values value_size, or
    the width / heads."""
    for name, value in {"heads": heads, "head_size": head_size, "value_size": value_size}.items():
        if value is not None or name == "heads":
            check_count(where, name, value)

    def sizes(width: int) -> Sizes:
        if (head_size is None and width % (share * heads)) or (value_size is None and width % heads):
            raise InputError(f"{where}: {share * heads} must divide the width of x, got {width}, or give both sizes")
        return Sizes(width, heads * (head_size or width // (share * heads)), heads * (value_size or width // heads))

    return sizes


def by_head(A: Tokens, heads: int) -> Heads:
    """The features of each head on an axis of their own."""
    return A.reshape(*A.shape[:2], heads, A.shape[2] // heads)


def side_by_side(A: Heads) -> Tokens:
    """The inverse of `by_head`."""
    return A.reshape(*A.shape[:2], A.shape[2] * A.shape[3])
