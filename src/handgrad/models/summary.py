"""A model as a table: its layers, shapes, parameters, bytes kept and operations, from shapes alone."""

import io
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
from jaxtyping import Array, PyTree

from handgrad.checks import inside
from handgrad.factors import materialize
from handgrad.factors.windows import whole_convolutions
from handgrad.layers import Layer
from handgrad.layers.layer import check_layer, kind
from handgrad.layers.observing import Part, innermost_with_turns
from handgrad.models.flops import product_flops

if TYPE_CHECKING:
    from rich.table import Table

TURN = re.compile(r"((?:[^.#]+\.)*)#(\d+)\.?(.*)")  # "blocks." "3" "attention.query", the third turn of a loop
NUMBERED = re.compile(r"((?:[^.]+\.)*?)(\d+)\.(.+)")  # the same of a chain without names
TURNS = re.compile(r"(?<![^.])#\d+(\.|$)")
PREFIXES = ("", "k", "M", "G", "T")
HEADINGS = ("layer", "kind", "output", "parameters", "kept", "forward", "backward")


class SummaryRow(NamedTuple):
    """One layer, or several that are alike.

    Attributes:
      name: its place in the params, as the paths of folds and checkpoints begin: "blocks.attention" for a layer of
        `repeat`'s blocks, "3.0" of a chain's. Rows of blocks that are alike are one, "*.0", where `times` is not 1.
      kind: the function that makes it, "linear".
      output: its output's shape, or those of several outputs.
      parameters: how many numbers it learns.
      kept: bytes of its residuals, the arrays that its forward pass keeps for the backward pass; parameters are left
        out.
      forward: FLOPs of the matrix products and convolutions of its forward pass, multiplications and additions, for
        the whole batch. Everything else (norms, activations, pools, biases) counts 0, and a convolution counts alike
        in whatever form it runs. The product that a `projection` leaves to the loss is in no row.
      backward: those of its backward pass: the gradients of its parameters and of its input.
      times: how many layers in a row of blocks are like this one.
    """

    name: str
    kind: str
    output: str
    parameters: int
    kept: int
    forward: int
    backward: int
    times: int = 1


class Summary(NamedTuple):
    """A row for each layer, and the whole model; printed, a table.

    Attributes:
      rows: in forward order. An array that two layers keep is in both rows.
      total: the model. An array that two layers keep is counted once.
    """

    rows: tuple[SummaryRow, ...]
    total: SummaryRow

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=200, file=io.StringIO(), record=True)
        console.print(self)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines()).strip("\n")

    def __rich__(self) -> "Table":
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, show_footer=True, padding=(0, 1, 0, 0))
        for heading, footer in zip(HEADINGS, _cells(self.total), strict=True):
            right = heading in HEADINGS[3:]
            table.add_column(heading, footer, justify="right" if right else "left", no_wrap=right)
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    __repr__ = __str__


def summary(model: Layer, x: PyTree[Array | jax.ShapeDtypeStruct]) -> Summary:
    """The layers of a model, from shapes alone: nothing is computed, however large it is.

    "kept" is the bytes of the arrays kept for the backward pass; "forward" and "backward" are the FLOPs of the matrix
    products and convolutions of the two passes, for the whole batch: see `SummaryRow`.

        >>> import handgrad as hg
        >>> model = hg.chain(hg.linear(4), hg.tanh(), hg.linear(3))
        >>> hg.summary(model, jax.ShapeDtypeStruct((5, 2), "float32"))
         layer  kind    output  parameters   kept  forward  backward
         ────────────────────────────────────────────────────────────
         0      linear  (5, 4)          12   40 B       80       160
         1      tanh    (5, 4)           0   80 B        0         0
         2      linear  (5, 3)          15   80 B      120       240
         ────────────────────────────────────────────────────────────
         model          (5, 3)          27  120 B      200       400

    Args:
      model: any layer. Layers inside it are found as `Layer.parts` finds them.
      x: its input, or the shapes of it, batch axis included.
    Raises:
      InputError: whatever the model raises for such an input.
    """
    check_layer("summary", model)
    params = jax.eval_shape(model.init, jax.random.key(0), x)
    rows: list[SummaryRow] = []

    def trace(params: PyTree, x: PyTree) -> None:
        parts = innermost_with_turns(model, params, x, None) or [(Part("", model, params, x, None), ())]
        known: dict[tuple[object, ...], SummaryRow] = {}
        for part, turns in parts:
            alike = (kind(part.layer), id(part.layer.init), jax.tree.structure((part.params, part.x)), *_avals(part))
            with inside(part.name or "model"):
                known[alike] = known.get(alike) or _row(part)
            rows.append(known[alike]._replace(name=_in_params(params, part.name, turns)))
        rows.append(_row(Part("model", model, params, x, None))._replace(kind=""))

    jax.eval_shape(trace, params, x)
    named = (row._replace(name=TURNS.sub("", row.name).strip(".")) for row in _blocks_as_one(rows[:-1]))
    return Summary(tuple(named), rows[-1])


def _row(part: Part) -> SummaryRow:
    """One layer, from the shapes of what it is given."""
    layer, given = part.layer, (part.params, part.x)

    def forward(params: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        nonlocal kept
        y, residuals = layer.forward(params, x)
        others = set(map(id, jax.tree.leaves(params)))
        kept = sum(
            {id(a): a.size * a.dtype.itemsize for a in jax.tree.leaves(residuals) if id(a) not in others}.values()
        )
        return y, residuals

    def both(params: PyTree, x: PyTree, dy: PyTree) -> PyTree:
        dx, dparams = layer.backward(layer.forward(params, x)[1], dy)
        return dx, materialize(dparams)

    kept, shapes = 0, jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), given)
    with whole_convolutions():
        y, _ = jax.eval_shape(forward, *shapes)
        flops, of_both = product_flops(forward, *shapes), product_flops(both, *shapes, y)
    output = " ".join(str(a.shape) for a in jax.tree.leaves(y))
    parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(part.params))
    return SummaryRow(part.name, kind(layer), output, parameters, kept, flops, of_both - flops)


def _avals(part: Part) -> Iterator[object]:
    for leaf in jax.tree.leaves((part.params, part.x)):
        yield leaf.shape
        yield leaf.dtype


def _blocks_as_one(rows: Sequence[SummaryRow]) -> Iterator[SummaryRow]:
    """Blocks that follow one another and are alike, row by row, become one block, and their numbers a *, or nothing
    where they are turns of a loop."""
    split = [(row, TURN.fullmatch(row.name) or NUMBERED.fullmatch(row.name)) for row in rows]
    for _, group in itertools.groupby(split, lambda pair: pair[1] and (pair[1].re, pair[1][1])):
        members = list(group)
        copies = [
            [
                row._replace(name=f"{match[1]}{'' if match.re is TURN else '*.'}{match[3]}")
                for row, match in copy
                if match
            ]
            for _, copy in itertools.groupby(members, lambda pair: pair[1] and pair[1][2])
        ]
        if len(copies) == 1 or any(copy != copies[0] for copy in copies):
            yield from (row for row, _ in members)
        else:
            yield from (row._replace(times=len(copies)) for row in copies[0])


def _in_params(params: PyTree, name: str, turns: tuple[int, ...]) -> str:
    """A layer's place as its parameters have it, a # before the turns of a loop, which they don't have."""
    kept, keys = [], name.split(".")
    for i, key in enumerate(keys):
        if i in turns:
            kept.append(f"#{key}")
            continue
        if isinstance(params, dict) and key in params:
            params = params[key]
        elif key in getattr(params, "_fields", ()):
            params = getattr(params, key)
        elif type(params) is tuple and key.isdigit() and int(key) < len(params):
            params = params[int(key)]
        elif key == "inside":  # of a wrapper whose parameters are the layer's
            continue
        else:
            kept += keys[i:]
            break
        kept.append(key)
    return ".".join(kept)


def _cells(row: SummaryRow) -> tuple[str, ...]:
    name = f"{row.name} ×{row.times}" if row.times > 1 else row.name
    counts = f"{row.parameters:,}", _short(row.kept, "B"), _short(row.forward), _short(row.backward)
    return name, row.kind, row.output, *counts


def _short(number: float, unit: str = "") -> str:
    """Whole up to 10,000; beyond, four digits and a prefix: 12.35 M."""
    if number < 10_000:
        return f"{number:,} {unit}".strip()
    power = min(int(math.log10(number)) // 3, len(PREFIXES) - 1)
    return f"{number / 1000**power:.4g} {PREFIXES[power]}{unit}"
