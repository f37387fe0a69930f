"""The table says what the fold does."""

import jax
import jax.numpy as jnp
import pytest
from whole_models import LOSS, drawn

import handgrad as hg


def shapes(name):
    model, params, x, target = drawn(name)
    return jax.eval_shape(hg.value_and_factors(model, LOSS), params, x, target)[1]


def test_a_row_for_each_parameter():
    """From shapes alone: nothing is computed."""
    factors = shapes("repeat")
    rows = {row.path: row for row in hg.costs(factors)}
    assert len(rows) == len(jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)) == 6
    row = rows["0.W"]
    assert (row.factor, row.shape, row.sides, row.method) == ("Outer", (6, 4), ((5, 6), (5, 4)), "gram")
    assert row.costs == {"gram": (2 * (6 + 4), 2 * 8), "direct": (2 * 6 * 4, 6 * 4 * 8)}
    assert (row.tokens, row.crossover) == (1, 6 * 4 / (6 + 4))
    assert (rows["0.b"].factor, rows["0.b"].method, rows["0.b"].crossover) == ("Total", "direct", None)
    (stacked,) = (row for row in rows.values() if row.factor == "Stacked(Outer)")
    assert stacked.shape == (3, 4, 4)
    assert stacked.costs["gram"].flops == 3 * 2 * (4 + 4)
    assert stacked.crossover == 4 * 4 / (4 + 4)


@pytest.mark.parametrize("tokens", [12, 13])
def test_the_method_changes_at_the_crossover(tokens):
    """20 × 30 makes 12 tokens."""
    side = (jax.ShapeDtypeStruct((2, tokens, n), jnp.float32) for n in (20, 30))
    (row,) = hg.costs({"W": hg.factors.Outer(*side)})
    assert row.crossover == 12
    assert row.method == ("gram" if tokens <= 12 else "direct")
    assert (row.costs["gram"].flops == row.costs["direct"].flops) == (tokens == 12)


@pytest.mark.parametrize("name", ["convnet", "lstm", "gpt2", "llama"])
def test_every_model(name):
    factors = shapes(name)
    table = hg.costs(factors)
    leaves = jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)
    assert [row.shape for row in table] == [factor.shape for factor in leaves]
    text = str(table)
    assert all(row.path in text and row.factor in text for row in table)
    assert max(map(len, text.splitlines())) <= 200


def test_a_tied_table():
    (row,) = (row for row in hg.costs(shapes("gpt2")) if row.factor == "Shared(Scatter, Outer)")
    assert (row.path, row.shape, list(row.costs)) == ("embedding.table", (7, 4), ["direct"])


def test_what_it_refuses():
    with pytest.raises(hg.InputError, match=r"^costs: W must be a factor, got a gradient that is summed already, "):
        hg.costs({"W": jnp.ones((2, 3))})
