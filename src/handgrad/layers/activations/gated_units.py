"""Gated units: of one array's two halves, and as the mlp of a transformer's block."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, check_array, check_choice, check_count, check_params, check_residuals, describe
from handgrad.layers.layer import Layer, composed, from_pair_rule, from_rule, made_by, placed
from handgrad.layers.linear.linear import LinearParams, linear
from handgrad.rule import Rule

__all__ = ["GatedMlpParams", "gated_mlp", "geglu", "glu", "swiglu"]

Initializer = jax.nn.initializers.Initializer
Policy = Literal["recompute", "save"]
Rows = Float[Array, "batch *rest n"]

GATES: dict[str, Rule[..., Array]] = {
    "sigmoid": rules.glu,
    "silu": rules.swiglu,
    "gelu": rules.geglu,
    "gelu_tanh": rules.geglu.with_options(approximate=True),
}


def glu(*, residuals: Policy = "recompute") -> Layer:
    """Y = V ∘ σ(U), V the first half of x's features and U the second, as in PyTorch's glu."""
    return _of_halves(rules.glu, residuals)


def swiglu(*, residuals: Policy = "recompute") -> Layer:
    """Y = V ∘ silu(U), V the first half of x's features and U, the gate's, the second."""
    return _of_halves(rules.swiglu, residuals)


def geglu(approximate: bool = False, *, residuals: Policy = "recompute") -> Layer:
    """Y = V ∘ gelu(U), V the first half of x's features and U, the gate's, the second; exact or in the tanh form."""
    return _of_halves(rules.geglu.with_options(approximate=approximate), residuals)


def _of_halves(rule: Rule[..., Array], residuals: Policy) -> Layer:
    """A gated unit as a layer of one array: (batch, ..., 2 n) to (batch, ..., n)."""
    where = rule.__name__
    check_choice(where, "residuals", residuals, ("recompute", "save"))

    def halves_forward(X: Float[Array, "batch *rest two_n"]) -> tuple[Rows, PyTree]:
        check_array(where, "x", X, min_ndim=2)
        if X.shape[-1] % 2:
            raise InputError(f"{where}: x must have an even number of features, two halves, got {describe(X)}")
        V, U = jnp.split(X, 2, axis=-1)
        return rule.forward(U, V, residuals=residuals)

    def halves_backward(kept: PyTree, dY: Rows) -> tuple[Float[Array, "batch *rest two_n"]]:
        dU, dV = rule.backward(kept, dY)
        return (jnp.concatenate([dV, dU], axis=-1),)

    return made_by(where, from_rule(Rule(halves_forward, halves_backward)))


class GatedMlpParams(NamedTuple):
    """Parameters of `gated_mlp`.

    Attributes:
      gate: of the linear that makes the gate's input, (n, n_hidden).
      up: of the linear that makes what the gate multiplies, (n, n_hidden).
      down: of the linear from the gated units to the output, (n_hidden, n).
    """

    gate: LinearParams
    up: LinearParams
    down: LinearParams


class GatedMlpResiduals(NamedTuple):
    """gate, up, unit, down: what each of the four keeps. x, which two of them keep, is one array."""

    gate: rules.LinearResiduals
    up: rules.LinearResiduals
    unit: PyTree
    down: rules.LinearResiduals


def gated_mlp(
    n_hidden: int,
    gate: Literal["sigmoid", "silu", "gelu", "gelu_tanh"] = "silu",
    *,
    bias: bool = False,
    n_out: int | None = None,
    residuals: Policy = "recompute",
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
    Derivation: docs/derivations/activations/gated_units.md
    """
    check_count("gated_mlp", "n_hidden", n_hidden)
    if n_out is not None:
        check_count("gated_mlp", "n_out", n_out)
    check_choice("gated_mlp", "gate", gate, tuple(GATES))
    check_choice("gated_mlp", "residuals", residuals, ("recompute", "save"))
    opening = linear(n_hidden, bias=bias, init_W=init_W)
    of_gate, of_up = placed("gate", opening), placed("up", opening)
    unit = placed("unit", from_pair_rule(GATES[gate].with_options(residuals=residuals), "(U, V)"))

    def down(x: Array | jax.ShapeDtypeStruct) -> Layer:
        return placed("down", linear(n_out or x.shape[-1], bias=bias, init_W=init_W))

    def init(key: PRNGKeyArray, x: Array | jax.ShapeDtypeStruct) -> GatedMlpParams:
        check_array("gated_mlp", "x", x, min_ndim=2)
        keys = jax.random.split(key, 3)
        hidden = jax.ShapeDtypeStruct((*x.shape[:-1], n_hidden), x.dtype)
        return GatedMlpParams(of_gate.init(keys[0], x), of_up.init(keys[1], x), down(x).init(keys[2], hidden))

    def forward(
        params: GatedMlpParams, x: Rows, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "batch *rest n_out"], GatedMlpResiduals]:
        check_params("gated_mlp", params, GatedMlpParams)
        check_array("gated_mlp", "x", x, min_ndim=2)
        u, kept_of_gate = of_gate.forward(params.gate, x)
        v, kept_of_up = of_up.forward(params.up, x)
        h, kept_of_unit = unit.forward((), (u, v))
        y, kept_of_down = down(x).forward(params.down, h)
        return y, GatedMlpResiduals(kept_of_gate, kept_of_up, kept_of_unit, kept_of_down)

    def backward(residuals: GatedMlpResiduals, dy: Float[Array, "batch *rest n_out"]) -> tuple[Rows, GatedMlpParams]:
        kept = check_residuals("gated_mlp", residuals, GatedMlpResiduals)
        dh, ddown = down(kept.gate.X).backward(kept.down, dy)
        (du, dv), _ = unit.backward(kept.unit, dh)
        dx_up, dup = of_up.backward(kept.up, dv)
        dx_gate, dgate = of_gate.backward(kept.gate, du)
        return dx_gate + dx_up, GatedMlpParams(dgate, dup, ddown)

    return composed(init, forward, backward)
