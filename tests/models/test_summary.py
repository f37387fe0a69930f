"""A model as a table, from shapes alone."""

import math

import coupling_rows
import jax
import jax.numpy as jnp
import pytest

import handgrad as hg
from handgrad.layers.layer import kind

ROWS = jax.ShapeDtypeStruct((5, 2), jnp.float32)


def test_every_layer_says_who_makes_it():
    kinds = {name: kind(layer) for name, (layer, *_) in coupling_rows.TABLE.items() if isinstance(layer, hg.Layer)}
    assert all(hasattr(hg.layers, made) for made in kinds.values()), kinds
    for name in ("tanh", "swiglu", "convolution", "layer_norm", "embedding", "retention", "lstm", "linear"):
        assert kinds[name] == name


def test_a_row_counts_products_parameters_and_bytes_kept():
    """X (5, 2) and W (2, 4): 2 · 5 · 2 · 4 FLOPs forward; Xᵀ dY and dY Wᵀ back; X is kept, W is a parameter."""
    table = hg.summary(hg.chain(hg.linear(4), hg.tanh()), ROWS)
    first, second = table.rows
    assert first == hg.models.SummaryRow("0", "linear", "(5, 4)", 12, 5 * 2 * 4, 80, 160)
    assert second == hg.models.SummaryRow("1", "tanh", "(5, 4)", 0, 5 * 4 * 4, 0, 0)
    assert table.total == hg.models.SummaryRow("model", "", "(5, 4)", 12, 120, 80, 160)


def test_the_model_counts_once_what_two_layers_keep():
    """tanh keeps its output, which is the next linear's input."""
    table = hg.summary(hg.chain(hg.linear(4), hg.tanh(), hg.linear(3)), ROWS)
    assert sum(row.kept for row in table.rows) == table.total.kept + 5 * 4 * 4


def test_blocks_that_are_alike_are_one():
    config = hg.models.Gpt2Config(vocabulary=11, tokens=8, width=4, blocks=3, heads=2)
    table = hg.summary(hg.models.gpt2(config), jax.ShapeDtypeStruct((2, 8), jnp.int32))
    names = {row.name: row for row in table.rows}
    assert names["body.blocks.mlp.up"].times == 3
    assert sum(row.parameters * row.times for row in table.rows) == table.total.parameters + 11 * 4  # the tied table
    assert sum(row.forward * row.times for row in table.rows) == table.total.forward
    assert "body.blocks.mlp.up ×3" in str(table)


def test_blocks_that_differ_and_single_layers():
    model = hg.chain(*(hg.residual(hg.chain(hg.linear(2), act)) for act in (hg.tanh(), hg.relu())))
    assert [row.name for row in hg.summary(model, ROWS).rows] == ["0.0", "0.1", "1.0", "1.1"]
    looped = hg.chain(hg.linear(2), hg.repeat(hg.residual(hg.chain(hg.linear(2), hg.tanh(), hg.linear(2))), 3))
    rows = hg.summary(looped, ROWS).rows
    assert [(row.name, row.times) for row in rows] == [("0", 1), ("1.0", 3), ("1.1", 3), ("1.2", 3)]
    (row,) = hg.summary(hg.linear(3), ROWS).rows
    assert row.kind == "linear"


def test_a_convolution_counts_alike_in_every_form():
    """Shifted products, XLA's with features of zeros, groups, strides; twice as much backward."""
    for n_in, layer in (
        (1, hg.convolution(8, 3)),
        (3, hg.convolution(24, 3)),
        (4, hg.convolution(4, 3, groups=4)),
        (2, hg.convolution(2, 3, strides=2)),
        (4, hg.transposed_convolution(2, 3, strides=2)),
    ):
        table = hg.summary(layer, jax.ShapeDtypeStruct((2, 8, 8, n_in), jnp.float32))
        params = jax.eval_shape(layer.init, jax.random.key(0), jax.ShapeDtypeStruct((2, 8, 8, n_in), jnp.float32))
        places = 2 * 4 * 4 if n_in == 2 else 2 * 8 * 8  # of the outputs, or those of a transposed one's inputs
        flops = 2 * places * math.prod(params.K.shape)
        assert (table.total.forward, table.total.backward) == (flops, 2 * flops), n_in


def test_numbers_are_short_and_what_is_no_layer_is_refused():
    wide = jax.ShapeDtypeStruct((512, 4096), jnp.float32)
    printed = str(hg.summary(hg.linear(4096), wide))
    assert all(number in printed for number in ("16,781,312", "8.389 MB", "17.18 G", "34.36 G"))
    with pytest.raises(hg.InputError, match="summary: expected a Layer"):
        hg.summary(hg.tanh, ROWS)
