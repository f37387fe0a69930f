"""Gated units: of one array's two halves, and as the mlp of a transformer's block."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad import rules
from handgrad.checks import (
    InputError,
    check_array,
    check_choice,
    check_count,
    check_params,
    check_residuals,
    describe,
    inside,
)
from handgrad.layers.layer import Composed, Layer, from_rule
from handgrad.layers.linear.linear import linear
from handgrad.rules.rule import Rule

__all__ = [
    "GatedMlpParams",
    "gated_mlp",
    "geglu",
    "glu",
    "swiglu",
]

Array = jax.Array
Initializer = jax.nn.initializers.Initializer

GATES = {
    "sigmoid": (rules.glu, {}),
    "silu": (rules.swiglu, {}),
    "gelu": (rules.geglu, {}),
    "gelu_tanh": (rules.geglu, {"approximate": True}),
}


def glu(*, residuals: str = "recompute") -> Layer:
    """Y = V ∘ σ(U), V the first half of x's features and U the second, as in PyTorch's glu."""
    return _of_halves(rules.glu, residuals)


def swiglu(*, residuals: str = "recompute") -> Layer:
    """Y = V ∘ silu(U), V the first half of x's features and U, the gate's, the second."""
    return _of_halves(rules.swiglu, residuals)


def geglu(approximate: bool = False, *, residuals: str = "recompute") -> Layer:
    """Y = V ∘ gelu(U), V the first half of x's features and U, the gate's, the second; exact or in the tanh form."""
    return _of_halves(rules.geglu, residuals, approximate=approximate)


def _of_halves(rule: Rule[..., Array], residuals: str, **options: Any) -> Layer:
    """A gated unit as a layer of one array: (batch, ..., 2 n) to (batch, ..., n)."""
    where = rule.__name__
    check_choice(where, "residuals", residuals, ("recompute", "save"))

    def halves_forward(X: Array) -> tuple[Array, Any]:
        check_array(where, "x", X, min_ndim=2)
        if X.shape[-1] % 2:
            raise InputError(f"{where}: x must have an even number of features, two halves, got {describe(X)}")
        V, U = jnp.split(X, 2, axis=-1)
        return rule.forward(U, V, residuals=residuals, **options)

    def halves_backward(kept: Any, dY: Array) -> tuple[Array]:
        dU, dV = rule.backward(kept, dY, **options)
        return (jnp.concatenate([dV, dU], axis=-1),)

    return from_rule(Rule(halves_forward, halves_backward))


class GatedMlpParams(NamedTuple):
    """Parameters of `gated_mlp`.

    Attributes:
      gate: LinearParams of what the gate sees, (n, n_hidden).
      up: LinearParams of what goes through it, (n, n_hidden).
      down: LinearParams from the gated units to the output, (n_hidden, n).
    """

    gate: Any
    up: Any
    down: Any


class GatedMlpResiduals(NamedTuple):
    """gate, up, unit, down: what each of the four keeps. x, which two of them keep, is one array."""

    gate: Any
    up: Any
    unit: Any
    down: Any


def gated_mlp(
    n_hidden: int,
    gate: str = "silu",
    *,
    bias: bool = False,
    n_out: int | None = None,
    residuals: str = "recompute",
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """y = down(act(gate(x)) ∘ up(x)), three linears around a gated unit.

    The parameters are GatedMlpParams(gate, up, down). With "silu" and no biases it is the mlp of Llama's blocks
    (Touvron et al. 2023).

    Args:
      n_hidden: features in between.
      gate: act, "sigmoid", "silu", "gelu" or "gelu_tanh".
      bias: True gives each linear a bias.
      n_out: output features; None takes as many as x has.
      residuals: the gated unit's, "recompute" or "save".
      init_W: the linears' initializer, (key, shape, dtype) -> array.
    Raises:
      InputError: n_hidden or n_out is not a positive integer; an unknown gate or policy; at trace time, params or
        residuals of another layer, and whatever the parts raise, with their names in front.
    Derivation: docs/derivations/activations/gated_units.md
    """
    check_count("gated_mlp", "n_hidden", n_hidden)
    if n_out is not None:
        check_count("gated_mlp", "n_out", n_out)
    check_choice("gated_mlp", "gate", gate, tuple(GATES))
    check_choice("gated_mlp", "residuals", residuals, ("recompute", "save"))
    opening = linear(n_hidden, bias=bias, init_W=init_W)
    unit = _unit(gate, residuals)

    def closing(x):
        return linear(n_out or x.shape[-1], bias=bias, init_W=init_W)

    def init(key, x):
        check_array("gated_mlp", "x", x, min_ndim=2)
        keys = jax.random.split(key, 3)
        hidden = jax.ShapeDtypeStruct((*x.shape[:-1], n_hidden), x.dtype)
        return GatedMlpParams(opening.init(keys[0], x), opening.init(keys[1], x), closing(x).init(keys[2], hidden))

    def forward(params, x, key=None):
        checked(params, x)
        with inside("gate"):
            u, of_gate = opening.forward(params.gate, x)
        with inside("up"):
            v, of_up = opening.forward(params.up, x)
        h, of_unit = unit.forward((), (u, v))
        with inside("down"):
            y, of_down = closing(x).forward(params.down, h)
        return y, GatedMlpResiduals(of_gate, of_up, of_unit, of_down)

    def backward(residuals, dy):
        of_gate, of_up, of_unit, of_down = check_residuals("gated_mlp", residuals, GatedMlpResiduals)
        with inside("down"):
            dh, ddown = closing(of_gate.X).backward(of_down, dy)
        (du, dv), _ = unit.backward(of_unit, dh)
        with inside("up"):
            dx_up, dup = opening.backward(of_up, dv)
        with inside("gate"):
            dx_gate, dgate = opening.backward(of_gate, du)
        return dx_gate + dx_up, GatedMlpParams(dgate, dup, ddown)

    def parts(params, x, key=None):
        checked(params, x)
        yield "gate", opening, params.gate, x, None
        yield "up", opening, params.up, x, None
        both = opening.forward(params.gate, x)[0], opening.forward(params.up, x)[0]
        yield "unit", unit, (), both, None
        yield "down", closing(x), params.down, unit.forward((), both)[0], None

    def checked(params, x):
        check_params("gated_mlp", params, GatedMlpParams)
        check_array("gated_mlp", "x", x, min_ndim=2)

    return Composed(init, forward, backward, parts)


def _unit(gate: str, residuals: str) -> Layer:
    """The gated unit as a layer of the pair (U, V)."""
    rule, options = GATES[gate]

    def forward(params, x, key=None):
        return rule.forward(*x, residuals=residuals, **options)

    def backward(kept, dy):
        return rule.backward(kept, dy, **options), ()

    return Layer(lambda key, x: (), forward, backward)
