"""What belongs to a batch of sequences (lengths, an initial state), and the layers that pass it on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from handgrad.checks import InputError, check_params, check_residuals, check_shape, describe
from handgrad.factors.trees import with_mask
from handgrad.layers.layer import Layer, check_layer, composed, passed_back, placed
from handgrad.layers.structure.chain import check_entries, last_coupling, split_key

__all__ = ["BidirectionalParams", "Sequences", "bidirectional", "each_step", "stacked"]


class Sequences(NamedTuple):
    """The input of a recurrent layer with lengths or a state; an X alone runs all of time from a state of zeros.

    Attributes:
      X: (batch, time, ...) a step each. What follows an example's length is not read and may be anything, NaN too.
      lengths: integers in 1 … time, or None for all of time.
      state: what the layer starts from: H0 (batch, n) for rnn and gru, (H0, C0) for lstm, a pair of states for
        bidirectional, one for each layer for stacked; None for zeros. Its cotangent is in the same field of dx.
    """

    X: PyTree
    lengths: Int[Array, " batch"] | None = None
    state: PyTree = None


class BidirectionalParams(NamedTuple):
    """Parameters of `bidirectional`.

    Attributes:
      forwards, backwards: params of the two layers.
    """

    forwards: PyTree
    backwards: PyTree


class EachStepResiduals(NamedTuple):
    """own: which steps are not past their example's end, None for all; kept: the layer's residuals."""

    own: Bool[Array, "batch time"] | None
    kept: PyTree


class BidirectionalResiduals(NamedTuple):
    """forwards, backwards: residuals of the two layers; width: the first one's output, for its width."""

    forwards: PyTree
    backwards: PyTree
    width: Array


def bidirectional(forwards: Layer, backwards: Layer) -> Layer:
    """Two recurrent layers on the same input, outputs side by side: `bidirectional(lstm(8), lstm(8, reverse=True))`.

    What both return, "sequence", "last" or "both", is what comes out; a last state is the pair of theirs.

    Args:
      forwards: the layer whose features come first.
      backwards: the other one, with reverse=True.
    Raises:
      InputError: not two layers; at trace time, two that return different things.
    Derivation: docs/derivations/sequences/rnn.md (Schuster, Paliwal 1997)
    """
    for layer in (forwards, backwards):
        check_layer("bidirectional", layer)
    one, other = (
        placed(name, layer) for name, layer in zip(BidirectionalParams._fields, (forwards, backwards), strict=True)
    )

    def init(key: PRNGKeyArray, x: PyTree) -> BidirectionalParams:
        key_one, key_other = jax.random.split(key)
        x_one, x_other = _for_each("bidirectional", x, 2)
        return BidirectionalParams(one.init(key_one, x_one), other.init(key_other, x_other))

    def forward(params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, BidirectionalResiduals]:
        check_params("bidirectional", params, BidirectionalParams)
        (x_one, x_other), (key_one, key_other) = _for_each("bidirectional", x, 2), split_key(key, 2)
        y, kept = one.forward(params.forwards, x_one, key_one)
        y_other, kept_other = other.forward(params.backwards, x_other, key_other)
        return _beside(y, y_other), BidirectionalResiduals(kept, kept_other, jax.tree.leaves(y)[0])

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, BidirectionalParams]:
        kept, kept_other, width = check_residuals("bidirectional", residuals, BidirectionalResiduals)
        dy_one, dy_other = _apart(dy, width.shape[-1])
        dx, dparams = one.backward(kept, dy_one)
        dx_other, dparams_other = other.backward(kept_other, dy_other)
        dparams = BidirectionalParams(dparams, dparams_other)
        if not isinstance(dx, Sequences):
            return dx + dx_other, dparams
        states = (dx.state, dx_other.state)
        return Sequences(dx.X + dx_other.X, None, None if states == (None, None) else states), dparams

    return composed(init, forward, backward, last_coupling((one, other)))


def stacked(*layers: Layer) -> Layer:
    """Recurrent layers on top of each other: a chain in which each layer has its initial state.

    Params are a tuple, x.state is one too. All layers but the last return "sequence", or all return "both": then the
    output is (the last layer's sequence, the tuple of all last states), ready to start the next piece of a long text.

    Args:
      *layers: rnn, lstm, gru or bidirectional; any layer from X to X where there is no state.
    Raises:
      InputError: no layer; at trace time, "both" from some layers only, states for another number of layers.
    Derivation: docs/derivations/sequences/rnn.md
    """
    if not layers:
        raise InputError("stacked: expected at least one layer, got none")
    for layer in layers:
        check_layer("stacked", layer)
    names = tuple(str(i) for i in range(len(layers)))
    steps = [placed(name, layer) for name, layer in zip(names, layers, strict=True)]

    def init(key: PRNGKeyArray, x: PyTree) -> tuple[PyTree, ...]:
        params, xs = [], _for_each("stacked", x, len(steps))
        for layer, k, own in zip(steps, jax.random.split(key, len(steps)), xs, strict=True):
            x = _with_state_of(x, own)
            params.append(layer.init(k, x))
            x, _ = _output(jax.eval_shape(layer.forward, params[-1], x)[0])
        return tuple(params)

    def forward(params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, tuple[PyTree, ...]]:
        check_entries("stacked", "params", params, len(steps))
        residuals, last = [], []
        for layer, p, k, own in zip(
            steps, params, split_key(key, len(steps)), _for_each("stacked", x, len(steps)), strict=True
        ):
            y, kept = layer.forward(p, _with_state_of(x, own), k)
            x, state = _output(y)
            residuals.append(kept)
            last.append(state)
        if all(state is None for state in last):
            return x, tuple(residuals)
        if any(state is None for state in last):
            raise InputError('stacked: layers must all return "both" or none of them, got some of each')
        return (x, tuple(last)), tuple(residuals)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, tuple[PyTree, ...]]:
        check_entries("stacked", "residuals", residuals, len(steps))
        dx, dlast = dy if type(dy) is tuple else (dy, None)
        dparams, dstates, by = [], [], None
        for i in reversed(range(len(steps))):
            dx, dp = steps[i].backward(residuals[i], dx if dlast is None else (dx, dlast[i]))
            dp, by = passed_back(steps[i], dp, by)
            dparams.append(dp)
            if isinstance(dx, Sequences):
                dstates.append(dx.state)
                dx = Sequences(dx.X)
        if any(dstate is not None for dstate in dstates):
            dx = Sequences(dx.X, None, tuple(reversed(dstates)))
        return dx, tuple(reversed(dparams))

    return composed(init, forward, backward, last_coupling(steps))


def each_step(layer: Layer) -> Layer:
    """`layer` on the X of Sequences, lengths and state passed on: an embedding before, or a linear after.

    On an array it is the layer itself. Past an example's length X is read as 0, whatever it holds, NaN too; these steps
    are left out of means over tokens.

    Args:
      layer: any layer that treats steps alike, or doesn't know time. One whose steps interact sees the zeros.
    """
    check_layer("each_step", layer)
    layer = placed("inside", layer)

    def init(key: PRNGKeyArray, x: PyTree) -> PyTree:
        return layer.init(key, _only_X(x))

    def forward(params: PyTree, x: PyTree, key: PRNGKeyArray | None = None) -> tuple[PyTree, PyTree]:
        own = _own_steps(x)
        y, kept = layer.forward(params, _zeroed(_only_X(x), own), key)
        return x._replace(X=y) if isinstance(x, Sequences) else y, EachStepResiduals(own, kept)

    def backward(residuals: PyTree, dy: PyTree) -> tuple[PyTree, PyTree]:
        own, kept = check_residuals("each_step", residuals, EachStepResiduals)
        dx, dparams = layer.backward(kept, _only_X(dy))
        if own is not None:
            dx, dparams = _zeroed(dx, own), with_mask(dparams, own)
        return Sequences(dx, None, dy.state) if isinstance(dy, Sequences) else dx, dparams

    return composed(init, forward, backward, layer.couples)


def _own_steps(x: PyTree) -> Array | None:
    """Which steps are not past their example's end: (batch, time), or None for all."""
    if not isinstance(x, Sequences) or x.lengths is None:
        return None
    if len(getattr(x.X, "shape", ())) < 2:
        raise InputError(f"each_step: x.X must have shape (batch, time, ...), got {describe(x.X)}")
    check_shape("each_step", "x.lengths", x.lengths, x.X.shape[:1], "(one for each example)")
    return jnp.expand_dims(jnp.arange(x.X.shape[1]), 0) < jnp.expand_dims(jnp.asarray(x.lengths), 1)


def _zeroed(X: PyTree, own: Array | None) -> PyTree:
    """X, or its cotangent, with zeros past each example's end; None, the cotangent of integers, stays."""
    if own is None or X is None:
        return X
    return jnp.where(jnp.expand_dims(own, tuple(range(2, X.ndim))), X, jnp.zeros((), X.dtype))


def _only_X(x: PyTree) -> PyTree:
    return x.X if isinstance(x, Sequences) else x


def _for_each(where: str, x: PyTree, n: int) -> list[PyTree]:
    """x as each of n layers gets it: with its own state."""
    if not isinstance(x, Sequences) or x.state is None:
        return [x] * n
    if not (type(x.state) is tuple and len(x.state) == n):
        raise InputError(f"{where}: x.state must be a tuple of {n}, one state for each layer, got {describe(x.state)}")
    return [x._replace(state=state) for state in x.state]


def _with_state_of(x: PyTree, own: PyTree) -> PyTree:
    return x._replace(state=own.state) if isinstance(x, Sequences) else x


def _output(y: PyTree) -> tuple[PyTree, PyTree]:
    """The sequence, and the last state where the layer returns both."""
    return y if type(y) is tuple else (y, None)


def _beside(one: PyTree, other: PyTree) -> PyTree:
    """Two outputs as one: features beside features, states in a pair."""
    if not isinstance(one, tuple) and not isinstance(other, tuple) and one.shape[:-1] == other.shape[:-1]:
        return jnp.concatenate([one, other], axis=-1)
    if isinstance(one, Sequences) and isinstance(other, Sequences):
        return Sequences(_beside(one.X, other.X), one.lengths)
    if type(one) is type(other) is tuple:
        return _beside(one[0], other[0]), (one[1], other[1])
    raise InputError(f"bidirectional: both layers must return alike, got {describe(one)} and {describe(other)}")


def _apart(dy: PyTree, width: int) -> tuple[PyTree, PyTree]:
    """The same, backwards."""
    if isinstance(dy, Sequences):
        dX, dX_other = _apart(dy.X, width)
        return Sequences(dX), Sequences(dX_other)
    if type(dy) is tuple:
        (dX, dX_other), (dlast, dlast_other) = _apart(dy[0], width), dy[1]
        return (dX, dlast), (dX_other, dlast_other)
    return dy[..., :width], dy[..., width:]
