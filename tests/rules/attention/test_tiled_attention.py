"""What tiling is for: memory that is linear in the tokens. What both forms share is in test_attention.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same, passes
from rules.refusals import refuses

import handgrad as hg
from handgrad import rules
from handgrad.rules.attention._arguments import Options
from handgrad.rules.attention._tiles import Tiles


def temporary_bytes(rule, tokens):
    arrays = [jax.ShapeDtypeStruct((1, tokens, 2, 8), np.float32)] * 4
    run = jax.jit(lambda dY, *arguments: passes(rule, dY, *arguments))
    return run.lower(*arrays).compile().memory_analysis().temp_size_in_bytes


def test_memory_grows_linearly_in_tiles():
    """Twice the tokens: twice the temporary memory, and less than the probabilities of one head alone."""
    small, large = (temporary_bytes(rules.tiled_attention.with_options(tile=32), tokens) for tokens in (256, 512))
    assert large <= 2.05 * small
    assert large < 4 * 512**2


@pytest.mark.parametrize(("tokens", "keys", "tile"), [(8, 8, 2), (7, 12, 3), (9, 4, 4), (3, 5, 8)])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_tiles_that_are_hidden_altogether_are_never_made(tokens, keys, tile, causal, window):
    tiles = Tiles.of(tokens, keys, tile)
    assert tiles.height <= tile
    assert tiles.width <= tile
    ahead = np.subtract.outer(np.arange(keys), np.arange(tokens)).T
    seen = (ahead <= 0) | (not causal)
    seen &= np.abs(ahead) < (window or 100)
    with_a_key = {(i // tiles.height * tiles.height, j // tiles.width * tiles.width) for i, j in np.argwhere(seen)}
    made = tiles.visible(Options(1.0, causal, window, None, 0.0))
    assert with_a_key == set(zip(made.query.tolist(), made.key.tolist(), strict=True))
    assert len(made.query) == len(with_a_key)


def test_tiles_that_a_static_mask_hides_are_never_made():
    """Of documents side by side, as a NumPy mask says it: known at trace time. A mask that is traced leaves all."""
    documents = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    mask = (documents[:, None] == documents)[None, None]
    tiles, options = Tiles.of(9, 9, 2), Options(1.0, False, None, None, 0.0)
    made = tiles.visible(options, mask)
    assert set(zip(made.query.tolist(), made.key.tolist(), strict=True)) == {
        (i // 2 * 2, j // 2 * 2) for i, j in np.argwhere(mask[0, 0])
    }
    assert len(tiles.visible(options, jnp.asarray(mask)).query) == 25
    of_keys = np.arange(9)[None, None, None] < 3
    assert tiles.visible(options, of_keys).key.max() == 2
    Q, K, V, dY = np.random.default_rng(0).standard_normal((4, 1, 9, 2, 3))
    rule = rules.tiled_attention.with_options(tile=2)

    @jax.jit
    def both(traced):
        return [passes(rule, dY, Q, K, V, None, a) for a in (mask, traced)]

    assert_same(*both(mask))


def test_refuses_a_tile_of_nothing():
    Q, K, V = (np.ones((2, 7, heads, 3)) for heads in (4, 2, 2))
    refuses(rules.tiled_attention, "tile must be a positive integer, got 0", Q, K, V, tile=0)
    Y, residuals = jax.eval_shape(rules.tiled_attention_forward, Q, K, V)
    with pytest.raises(hg.InputError, match=r"^tiled_attention_backward: tile must be a positive integer, got 2.0$"):
        rules.tiled_attention_backward(residuals, Y, tile=2.0)
