"""What the layers of attention share: their input's form, and the rules between their projections, as layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import check_positive
from handgrad.layers.attention.tokens import Tokens
from handgrad.layers.layer import Layer, from_rule, made_by, placed
from handgrad.rule import Rule
from handgrad.rules.attention._tiles import is_worth_tiling

Heads = Float[Array, "batch tokens heads n"]
AttentionResiduals = rules.AttentionResiduals | rules.TiledAttentionResiduals


@jax.tree_util.register_static
@dataclass(frozen=True)
class Form:
    """Whether x was Tokens, and with a context."""

    tokens: bool = False
    context: bool = False

    @classmethod
    def of(cls, x: PyTree) -> "tuple[Tokens, Form]":
        """x as Tokens, and its form."""
        return (x, cls(True, x.context is not None)) if isinstance(x, Tokens) else (Tokens(x), cls())


def of_heads(tile: int | None, options: Mapping[str, Any], mask: Array | None = None) -> Layer:
    """The attention of (Q, K, V), or (Q, K, V, bias), as a layer, plain or tiled; its parameters are the sinks or
    None."""
    plain = rules.attention.with_options(**options)
    tiled = rules.tiled_attention.with_options(tile=tile, **options)

    def forward(
        sinks: Array | None, x: tuple[Heads, ...], key: PRNGKeyArray | None = None
    ) -> tuple[Heads, AttentionResiduals]:
        in_tiles = tile is not None or is_worth_tiling(x[0].shape[1], x[1].shape[1])
        bias = x[3] if len(x) > 3 else None
        return (tiled if in_tiles else plain).forward(*x[:3], bias, mask, key, sinks)

    def backward(residuals: AttentionResiduals, dy: Heads) -> tuple[tuple[Heads, ...], PyTree]:
        in_tiles = isinstance(residuals, rules.TiledAttentionResiduals)
        dQ, dK, dV, dbias, _, _, dsinks = (tiled if in_tiles else plain).backward(residuals, dy)
        return (dQ, dK, dV) if dbias is None else (dQ, dK, dV, dbias), dsinks

    return placed("attention", made_by("attention", Layer(lambda key, x: None, forward, backward)))


def rotary_rule(where: str, rotary: float | Mapping[str, Any]) -> Rule[..., Array]:
    """The rotary rule with these options, or this base."""
    if not isinstance(rotary, Mapping):
        check_positive(where, "rotary", rotary)
        rotary = {"base": rotary}
    return rules.rotary.with_options(**rotary)


def turned(rule: Rule[..., Array], positions: Array | None) -> Layer:
    """The rotation of queries or keys by their position, as a layer; None is their position in the sequence."""

    def forward(X: Heads) -> tuple[Heads, rules.RotaryResiduals]:
        return rule.forward(X, jnp.arange(X.shape[1]) if positions is None else positions)

    return placed(
        "rotary", made_by("rotary", from_rule(Rule(forward, lambda residuals, dY: rule.backward(residuals, dY)[:1])))
    )
