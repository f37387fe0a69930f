"""Gated units, beside jax.nn's gates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

from handgrad.cli.library.entry import Entry, normal


def of_gate(op: str, gate: Callable[..., Any], **options: Any) -> list[Entry]:
    """Rows with the gate computed again, tokens with the slopes saved."""

    def unit(U: Any, V: Any, **options: Any) -> Any:
        return gate(U, **options) * V

    return [
        Entry(op, "rows", normal((5, 7), (5, 7)), unit, options),
        Entry(op, "tokens", normal((3, 2, 4), (3, 2, 4)), unit, {**options, "residuals": "save"}),
    ]


GATED_UNITS = [
    *of_gate("glu", jax.nn.sigmoid),
    *of_gate("swiglu", jax.nn.silu),
    *of_gate("geglu", partial(jax.nn.gelu, approximate=False)),
    Entry("geglu", "rows", normal((5, 7), (5, 7)), lambda U, V, approximate: jax.nn.gelu(U) * V, {"approximate": True}),
]
