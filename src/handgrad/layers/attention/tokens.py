"""Tokens, and what belongs to a batch of them besides: which are padding, where they stand, what they attend to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_shape, describe, is_integer
from handgrad.layers.layer import Layer, composed
from handgrad.layers.sequences.sequences import Sequences

__all__ = ["Tokens", "padded", "told"]

MaskOfTokens = Bool[Array, "batch keys"] | Bool[Array, "#batch #heads #tokens keys"]
Positions = Integer[Array, "batch tokens"]


class Tokens(NamedTuple):
    """The input of attention, or of a transformer, where tokens alone don't say everything.

    Attributes:
      X: (batch, tokens, ...) the tokens: features, or ids.
      mask: True where a key may be seen. (batch, keys) says which tokens are no padding (an attention mask); (batch,
        heads, tokens, keys), of which the first three may be 1, says it for each query. None hides nothing.
      positions: of X, for rotary and learned positions; None is 0, 1, …
      context: (batch, keys, n) what X attends to, in the place of itself (cross-attention).
      bias: added to the scores, of their shape (batch, heads, tokens, keys), of which the first three may be 1.
    """

    X: PyTree
    mask: MaskOfTokens | None = None
    positions: Positions | None = None
    context: Float[Array, "batch keys n"] | None = None
    bias: Float[Array, "#batch #heads #tokens keys"] | None = None


class PaddedResiduals(NamedTuple):
    """mask, positions: what the layer inside is told; kept: its residuals."""

    mask: MaskOfTokens | None
    positions: Positions | None
    kept: PyTree


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Told:
    """Stands in a layer's residuals for what it is told again in its backward pass."""

    name: str


def told(layer: Layer, mask: MaskOfTokens | None = None, positions: Positions | None = None) -> Layer:
    """`layer`, a layer of Tokens, as a layer of X alone: it gets this mask and these positions with every X.

    Neither is among its residuals, so that `repeat` doesn't stack them. With None for both it is the layer itself.
    """
    if mask is None and positions is None:
        return layer
    given = {"mask": mask, "positions": positions}

    def forward(params: PyTree, X: Array, key: PRNGKeyArray | None = None) -> tuple[PyTree, PyTree]:
        y, kept = layer.forward(params, Tokens(X, **given), key)
        names = {id(a): name for name, a in given.items() if a is not None}
        return y, jax.tree.map(lambda leaf: _Told(names[id(leaf)]) if id(leaf) in names else leaf, kept)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, PyTree]:
        dx, dparams = layer.backward(
            jax.tree.map(
                lambda leaf: given[leaf.name] if isinstance(leaf, _Told) else leaf,
                residuals,
                is_leaf=lambda node: isinstance(node, _Told),
            ),
            dy,
        )
        return dx.X, dparams

    return composed(layer.init, forward, backward, layer.couples)


def padded(make: Callable[[MaskOfTokens | None, Positions | None], Layer]) -> Layer:
    """A transformer of ids that also takes a padded batch: `Tokens(ids, mask)`, or `Sequences(ids, lengths)`.

    What the mask hides is seen by no token, and no gradient comes from it; its logits mean nothing, and their labels
    are for the loss to ignore (`ignore_index`). Where a mask (batch, tokens) says that padding comes first, positions
    count from the first token behind it.

    Args:
      make: (mask, positions) -> the layer of ids in which attention is `told` this mask and these positions.
    """
    plain = make(None, None)

    def init(key: PRNGKeyArray, x: PyTree) -> PyTree:
        x, positions = (x.X, getattr(x, "positions", None)) if isinstance(x, Tokens | Sequences) else (x, None)
        if positions is not None:  # one row of several documents may have more tokens than there are positions
            x = jax.eval_shape(lambda ids: ids[..., :1], x)
        return plain.init(key, x)

    def forward(params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, PyTree]:
        if not isinstance(x, Tokens | Sequences):
            return plain.forward(params, x, key)
        ids, mask, positions = _ids_mask_positions(x)
        y, kept = make(mask, positions).forward(params, ids, key)
        return y, PaddedResiduals(mask, positions, kept)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[None, PyTree]:
        if not isinstance(residuals, PaddedResiduals):
            return plain.backward(residuals, dy)
        mask, positions, kept = residuals
        return make(mask, positions).backward(kept, dy)

    return composed(init, forward, backward, plain.couples)


def scores_mask(where: str, x: Tokens, keys: int) -> Bool[Array, "#batch #heads #tokens keys"] | None:
    """The mask with the scores' axes: (batch, keys) hides keys from every query."""
    mask = x.mask
    if mask is None:
        return None
    if getattr(mask, "dtype", None) != np.bool_ or len(mask.shape) not in (2, 4):
        expected = "booleans of shape (batch, keys) or (batch, heads, tokens, keys)"
        raise InputError(f"{where}: x.mask must be {expected}, got {describe(mask)}")
    if len(mask.shape) == 4:
        return mask
    check_shape(where, "x.mask", mask, (x.X.shape[0], keys), "(batch, keys)")
    return mask[:, None, None, :]


def _ids_mask_positions(x: Tokens | Sequences) -> tuple[Array, Array | None, Array | None]:
    """Ids, the mask with the scores' axes, and positions, of a padded batch."""
    where = "padded"
    if not (is_integer(x.X) and len(x.X.shape) == 2):
        raise InputError(f"{where}: x.X must be ids of shape (batch, tokens), got {describe(x.X)}")
    ids, tokens = x.X, x.X.shape[1]
    if isinstance(x, Sequences):
        if x.lengths is None or x.state is not None:
            raise InputError(f"{where}: Sequences must have lengths and no state")
        check_shape(where, "x.lengths", x.lengths, ids.shape[:1], "(one for each example)")
        own = jnp.expand_dims(jnp.arange(tokens), 0) < jnp.expand_dims(jnp.asarray(x.lengths), 1)
        return jnp.where(own, ids, 0), own[:, None, None, :], None
    if x.context is not None or x.bias is not None:
        raise InputError(f"{where}: a transformer of ids takes no context and no bias")
    mask, own, positions = scores_mask(where, x, tokens), x.mask, x.positions
    if own is not None and own is not mask:  # (batch, tokens)
        positions = jnp.maximum(jnp.cumsum(own, axis=1) - 1, 0) if positions is None else positions
        ids = jnp.where(own, ids, 0)  # padding may be any number
    return ids, mask, positions
