"""multi_head_attention: every token attends to the tokens that it may see."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import InputError, check_array, check_choice, check_count, check_params, check_residuals, describe
from handgrad.layers.attention._heads import AttentionResiduals, Form, Heads, of_heads, rotary_rule, turned
from handgrad.layers.attention.tokens import Tokens, scores_mask
from handgrad.layers.layer import Layer, check_layer, composed, placed
from handgrad.layers.linear.linear import Initializer, LinearParams, linear
from handgrad.layers.linear.lora import LoraParams, lora_linear
from handgrad.rule import Rule
from handgrad.rules.attention._arguments import check_options

__all__ = ["MultiHeadAttentionParams", "multi_head_attention"]

Features = Float[Array, "batch tokens n"]
ProjectionParams = LinearParams | LoraParams
ProjectionResiduals = rules.LinearResiduals | rules.LoraLinearResiduals


class MultiHeadAttentionParams(NamedTuple):
    """Parameters of `multi_head_attention`: of four linear layers, with adapters where it has a rank of them.

    Attributes:
      query: W (n_in, heads × head_size).
      key, value: W (n_in, kv_heads × head_size), n_in of the context where there is one.
      output: W (heads × head_size, n_in).
      query_norm, key_norm: of the layer qk_norm, or None.
      sinks: (heads,) logits where they are learned, initialized to zeros; or None.
    """

    query: ProjectionParams
    key: ProjectionParams
    value: ProjectionParams
    output: ProjectionParams
    query_norm: PyTree = None
    key_norm: PyTree = None
    sinks: Array | None = None


class MultiHeadAttentionResiduals(NamedTuple):
    """What each of the layers inside keeps; `normed` and `rotated` are of queries and keys, or None; and x's form."""

    query: ProjectionResiduals
    key: ProjectionResiduals
    value: ProjectionResiduals
    normed: tuple[PyTree, ...] | None
    rotated: tuple[rules.RotaryResiduals, ...] | None
    attention: AttentionResiduals
    output: ProjectionResiduals
    form: Form


class Projections(NamedTuple):
    """The four linear layers."""

    query: Layer
    key: Layer
    value: Layer
    output: Layer


def multi_head_attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_size: int | None = None,
    bias: bool | Literal["qkv"] = True,
    causal: bool = False,
    window: int | None = None,
    softcap: float | None = None,
    rotary: float | Mapping[str, Any] | None = None,
    alibi: bool | Sequence[float] = False,
    qk_norm: Layer | None = None,
    sinks: Literal["learned", "zero"] | None = None,
    dropout: float = 0.0,
    tile: int | None = None,
    lora_rank: int | None = None,
    init_W: Initializer = jax.nn.initializers.lecun_normal(),
) -> Layer:
    """Y = [Y₁ … Y_heads] W_output, Y_h the attention of head h's queries, keys and values, all of them linear in X.

    X is (batch, tokens, n_in), and Y is like it. With a mask, positions, a bias or a context, x is Tokens(X, …), and so
    is dx: keys and values are linear in the context (cross-attention), whose tokens and features may be others than
    X's. The key of `forward` is dropout's.

    >>> import jax, jax.numpy as jnp
    >>> from handgrad import layers
    >>> layer = layers.multi_head_attention(4, kv_heads=2, causal=True, rotary=10000.0)
    >>> layer.init(jax.random.key(0), jnp.ones((1, 10, 32))).key.W.shape
    (32, 16)

    Args:
      heads: how many attentions side by side.
      kv_heads: heads of keys and values, a divisor of heads, shared among groups (grouped-query attention); None is as
        many as heads.
      head_size: features of a head; None is n_in / heads.
      bias: False omits the biases of all four projections, "qkv" the output's alone.
      causal, window, softcap, dropout: as attention_forward.
      rotary: a rotary position embedding of queries and keys: its base, or `rules.rotary`'s options as a dict; None for
        none.
      alibi: True takes ALiBi's published slopes; or a slope for each head.
      qk_norm: a layer for the features of each head's queries, and with other parameters for those of its keys, before
        they rotate: `rms_norm()`. None for none.
      sinks: a logit in each head's softmax that belongs to no key: "learned", or "zero", which adds 1 to its
        denominator; None for none.
      tile: a number is tiled attention with so many queries and keys at a time; None is tiled attention where there are
        many tokens, 256 and more on a CPU, and plain attention, which keeps its probabilities, where there are few.
      lora_rank: the rank of adapters beside the four weights, as `lora_linear` has them; None for none.
      init_W: initializer of the four weights, (key, shape, dtype) -> array; biases begin at zero.
    Derivation: docs/derivations/attention/attention.md
    """
    where = "multi_head_attention"
    kv_heads = heads if kv_heads is None else kv_heads
    counts = {"heads": heads, "kv_heads": kv_heads, "head_size": head_size, "tile": tile, "lora_rank": lora_rank}
    for name, value in counts.items():
        if value is not None or name == "heads":
            check_count(where, name, value)
    if heads % kv_heads:
        raise InputError(f"{where}: kv_heads must divide heads, got {kv_heads} and {heads}")
    check_choice(where, "bias", bias, (True, False, "qkv"))
    check_choice(where, "sinks", sinks, (None, "learned", "zero"))
    slopes = (rules.alibi_slopes(heads) if alibi is True else tuple(alibi)) if alibi else None
    check_options(where, (heads, 1), None, causal, window, softcap, dropout, slopes)
    options = {"causal": causal, "window": window, "softcap": softcap, "dropout": dropout, "alibi": slopes}
    turning = None if rotary is None else rotary_rule(where, rotary)
    norms = None if qk_norm is None else _norms(where, qk_norm)

    def projections(X: Features | jax.ShapeDtypeStruct, context: Features | jax.ShapeDtypeStruct) -> Projections:
        """The four linear layers for an input and a context like these."""
        for name, A in (("x", X), ("x.context", context)):
            check_array(where, name, A)
            if len(A.shape) != 3:
                raise InputError(f"{where}: {name} must have shape (batch, tokens, features), got {describe(A)}")
        n_in, n_context = X.shape[2], context.shape[2]

        def to(name: str, n: int, n_in: int) -> Layer:
            has_bias = bias is True or (bias == "qkv" and name != "output")
            if lora_rank is not None:
                return placed(name, lora_linear(n, rank=lora_rank, bias=has_bias, init_W=init_W))
            return placed(name, linear(n, n_in=n_in, bias=has_bias, init_W=init_W))

        size = size_of(X)
        key, value = (to(name, kv_heads * size, n_context) for name in ("key", "value"))
        return Projections(to("query", heads * size, n_in), key, value, to("output", n_in, heads * size))

    def size_of(X: Features | jax.ShapeDtypeStruct) -> int:
        """Features of a head."""
        if head_size is None and X.shape[2] % heads:
            raise InputError(f"{where}: heads must divide the width of x, got {heads} heads for {describe(X)}")
        return head_size or X.shape[2] // heads

    def init(key: PRNGKeyArray, x: PyTree) -> MultiHeadAttentionParams:
        x, _ = Form.of(x)
        context = x.X if x.context is None else x.context
        layers, size = projections(x.X, context), size_of(x.X)
        merged = jax.ShapeDtypeStruct((*x.X.shape[:2], heads * size), x.X.dtype)
        keys, inputs = jax.random.split(key, 4), (x.X, context, context, merged)
        each = [layer.init(k, A) for layer, k, A in zip(layers, keys, inputs, strict=True)]
        of_head = jax.ShapeDtypeStruct((*x.X.shape[:2], heads, size), x.X.dtype)
        of_norms = [norm.init(jax.random.fold_in(key, i), of_head) for i, norm in enumerate(norms or ())]
        of_sinks = jnp.zeros(heads, jax.dtypes.canonicalize_dtype(x.X.dtype)) if sinks == "learned" else None
        return MultiHeadAttentionParams._make((*each, *(of_norms or (None, None)), of_sinks))

    def forward(
        params: MultiHeadAttentionParams, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Features, MultiHeadAttentionResiduals]:
        check_params(where, params, MultiHeadAttentionParams)
        for name, wanted in (("query_norm", norms), ("key_norm", norms), ("sinks", sinks == "learned" or None)):
            if (getattr(params, name) is None) != (wanted is None):
                expected = "None" if wanted is None else "parameters"
                raise InputError(f"{where}: params.{name} must be {expected}, got {describe(getattr(params, name))}")
        x, form = Form.of(x)
        X, context = x.X, x.context if form.context else x.X
        layers, size = projections(X, context), size_of(X)
        mask = scores_mask(where, x, context.shape[1])

        projected = zip(layers[:3], params[:3], (X, context, context), strict=True)
        (Q, query), (K, of_key), (V, value) = (layer.forward(p, A) for layer, p, A in projected)
        Q, K, V = (A.reshape(*A.shape[:2], A.shape[2] // size, size) for A in (Q, K, V))
        own = (x.positions, None if form.context else x.positions)
        (Q, K), normed = _normed(norms, (params.query_norm, params.key_norm), (Q, K))
        (Q, K), rotated = _rotated(turning, own, (Q, K))
        attend = of_heads(tile, options, mask)
        of_sinks = jnp.zeros(heads, Q.dtype) if sinks == "zero" else params.sinks
        Y, attention = attend.forward(of_sinks, (Q, K, V) if x.bias is None else (Q, K, V, x.bias), key)
        y, output = layers.output.forward(params.output, Y.reshape(*X.shape[:2], heads * size))
        return y, MultiHeadAttentionResiduals(query, of_key, value, normed, rotated, attention, output, form)

    def backward(residuals: MultiHeadAttentionResiduals, dy: Features) -> tuple[PyTree, MultiHeadAttentionParams]:
        residuals = check_residuals(where, residuals, MultiHeadAttentionResiduals)
        X, context = residuals.query.X, residuals.key.X
        layers, size = projections(X, context), size_of(X)
        dY, doutput = layers.output.backward(residuals.output, dy)
        attend = of_heads(tile, options)
        (dQ, dK, dV, *dbias), dsinks = attend.backward(residuals.attention, dY.reshape(*dy.shape[:2], heads, size))
        if turning is not None and residuals.rotated is not None:
            dQ, dK = (turning.backward(kept, d)[0] for kept, d in zip(residuals.rotated, (dQ, dK), strict=True))
        dnorms = None, None
        if norms is not None and residuals.normed is not None:
            pairs = [norm.backward(*one) for norm, *one in zip(norms, residuals.normed, (dQ, dK), strict=True)]
            (dQ, dK), dnorms = zip(*pairs, strict=True)
        d, kept = (dQ, dK, dV), (residuals.query, residuals.key, residuals.value)
        rows = (A.reshape(*A.shape[:2], A.shape[2] * size) for A in d)
        (dx_q, dquery), (dx_k, dkey), (dx_v, dvalue) = (
            layer.backward(*one) for layer, *one in zip(layers[:3], kept, rows, strict=True)
        )
        dX, dcontext = (dx_q, dx_k + dx_v) if residuals.form.context else (dx_q + dx_k + dx_v, None)
        dx = Tokens(dX, context=dcontext, bias=next(iter(dbias), None)) if residuals.form.tokens else dX
        of_sinks = dsinks if sinks == "learned" else None
        return dx, MultiHeadAttentionParams(dquery, dkey, dvalue, doutput, dnorms[0], dnorms[1], of_sinks)

    return composed(init, forward, backward)


def _norms(where: str, qk_norm: Layer) -> tuple[Layer, Layer]:
    """The norms of queries and of keys."""
    check_layer(where, qk_norm)
    if qk_norm.couples is not None:
        raise InputError(f"{where}: qk_norm must not couple the examples of a batch, but {qk_norm.couples}")
    return placed("query_norm", qk_norm), placed("key_norm", qk_norm)


def _normed(
    norms: tuple[Layer, Layer] | None, params: tuple[PyTree, PyTree], both: tuple[Heads, Heads]
) -> tuple[tuple[Heads, ...], tuple[PyTree, ...] | None]:
    """Queries and keys through their norms, if there are any, and what these keep."""
    if norms is None:
        return both, None
    pairs = [norm.forward(*one) for norm, *one in zip(norms, params, both, strict=True)]
    both, kept = zip(*pairs, strict=True)
    return both, kept


def _rotated(
    rule: Rule[..., Array] | None, positions: tuple[Array | None, Array | None], both: tuple[Heads, ...]
) -> tuple[tuple[Heads, ...], tuple[rules.RotaryResiduals, ...] | None]:
    """Queries and keys, rotated if there is a rule to do it, and what it keeps."""
    if rule is None:
        return both, None
    pairs = [turned(rule, own).forward((), A) for own, A in zip(positions, both, strict=True)]
    both, kept = zip(*pairs, strict=True)
    return both, kept
