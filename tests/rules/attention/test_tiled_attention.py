"""What tiling is for: memory that is linear in the tokens. What both forms share is in test_attention.py."""

import jax
import numpy as np
import pytest
from helpers import passes
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules


def temporary_bytes(rule, tokens):
    arrays = [jax.ShapeDtypeStruct((1, tokens, 2, 8), np.float32)] * 4
    run = jax.jit(lambda dY, *arguments: passes(rule, dY, *arguments))
    return run.lower(*arrays).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_linearly_in_tiles():
    """Twice the tokens: twice the temporary memory in tiles, four times in the plain form."""
    small, large = (temporary_bytes(rules.tiled_attention.with_options(tile=32), tokens) for tokens in (256, 512))
    plain, twice = (temporary_bytes(rules.attention, tokens) for tokens in (256, 512))
    assert large <= 2.05 * small
    assert twice >= 3.5 * plain
    assert large < twice / 8


def test_refuses_a_tile_of_nothing():
    Q, K, V = (np.ones((2, 7, heads, 3)) for heads in (4, 2, 2))
    refuses(rules.tiled_attention, "tile must be a positive integer, got 0", Q, K, V, tile=0)
    Y, residuals = jax.eval_shape(rules.tiled_attention_forward, Q, K, V)
    with pytest.raises(hg.InputError, match=r"^tiled_attention_backward: tile must be a positive integer, got 2.0$"):
        rules.tiled_attention_backward(residuals, Y, tile=2.0)
