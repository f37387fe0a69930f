"""multi_head_attention: every token attends to the tokens that it may see."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from handgrad import rules
from handgrad.checks import check_choice, check_count, check_params, check_residuals
from handgrad.layers.attention._heads import Form, rotary_rule
from handgrad.layers.attention._inside import Inside, InsideParams, InsideResiduals, norms_of, relative_rule
from handgrad.layers.attention._projections import (
    Features,
    OfInputs,
    ProjectionParams,
    ProjectionResiduals,
    projections,
)
from handgrad.layers.attention.tokens import Tokens
from handgrad.layers.layer import Layer, composed, made_by
from handgrad.layers.linear.linear import Initializer
from handgrad.rules.attention._arguments import check_options

__all__ = ["MultiHeadAttentionParams", "multi_head_attention"]


class MultiHeadAttentionParams(NamedTuple):
    """Parameters of `multi_head_attention`: of four linear layers, with adapters where it has a rank of them.

    Attributes:
      query: W (n_in, heads × head_size).
      key, value: W (n_in, kv_heads × head_size), n_in of the context where there is one.
      output: W (heads × head_size, n_in).
      query_norm, key_norm: of the layer qk_norm, or None.
      sinks: (heads,) logits where they are learned, initialized to zeros; or None.
      relative: (buckets, heads) the relative position bias, initialized to zeros; or None.
    """

    query: ProjectionParams
    key: ProjectionParams
    value: ProjectionParams
    output: ProjectionParams
    query_norm: PyTree = None
    key_norm: PyTree = None
    sinks: Array | None = None
    relative: Array | None = None


class MultiHeadAttentionResiduals(NamedTuple):
    """What each of the projections, and all between them, keeps; and x's form."""

    query: ProjectionResiduals
    key: ProjectionResiduals
    value: ProjectionResiduals
    inside: InsideResiduals
    output: ProjectionResiduals
    form: Form


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
    relative: int | Mapping[str, Any] | None = None,
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
      relative: T5's relative position bias, of so many buckets; or a dict of "buckets" and relative_position_bias's
        options; None for none. Distances are those of the sequence, whatever the positions in x.
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
    projected = projections(where, heads, heads if kv_heads is None else kv_heads, head_size, bias, lora_rank, init_W)
    if tile is not None:
        check_count(where, "tile", tile)
    check_choice(where, "sinks", sinks, (None, "learned", "zero"))
    slopes = (rules.alibi_slopes(heads) if alibi is True else tuple(alibi)) if alibi else None
    check_options(where, (heads, 1), None, causal, window, softcap, dropout, slopes)
    options = {"causal": causal, "window": window, "softcap": softcap, "dropout": dropout, "alibi": slopes}
    turning = None if rotary is None else rotary_rule(where, rotary)
    norms, (biasing, buckets) = norms_of(where, qk_norm), relative_rule(where, relative, causal)
    return _around(where, projected, Inside(where, heads, norms, turning, biasing, buckets, sinks, tile, options))


def _around(where: str, projected: OfInputs, inside: Inside) -> Layer:
    """The projections in front of what is inside, and the output's behind it."""

    def init(key: PRNGKeyArray, x: PyTree) -> MultiHeadAttentionParams:
        x, _ = Form.of(x)
        context = x.X if x.context is None else x.context
        *layers, size = projected(x.X, context)
        of_head = jax.ShapeDtypeStruct((*x.X.shape[:2], inside.heads, size), x.X.dtype)
        merged = jax.ShapeDtypeStruct((*x.X.shape[:2], inside.heads * size), x.X.dtype)
        keys, inputs = jax.random.split(key, 4), (x.X, context, context, merged)
        each = [layer.init(k, A) for layer, k, A in zip(layers, keys, inputs, strict=True)]
        return MultiHeadAttentionParams._make([*each, *inside.init(key, of_head)])

    def forward(
        params: MultiHeadAttentionParams, x: PyTree, key: PRNGKeyArray | None = None
    ) -> tuple[Features, MultiHeadAttentionResiduals]:
        check_params(where, params, MultiHeadAttentionParams)
        x, form = Form.of(x)
        X, context = x.X, x.context if form.context else x.X
        *layers, output, size = projected(X, context)
        pairs = [layer.forward(p, A) for layer, p, A in zip(layers, params[:3], (X, context, context), strict=True)]
        Q, K, V = (A.reshape(*A.shape[:2], A.shape[2] // size, size) for A, _ in pairs)
        Y, of_heads = inside.forward(InsideParams._make(params[4:]), (Q, K, V), x, key)
        y, of_output = output.forward(params.output, Y.reshape(*X.shape[:2], Y.shape[2] * size))
        return y, MultiHeadAttentionResiduals._make([*(kept for _, kept in pairs), of_heads, of_output, form])

    def backward(residuals: MultiHeadAttentionResiduals, dy: Features) -> tuple[PyTree, MultiHeadAttentionParams]:
        *of_three, of_heads, of_output, form = check_residuals(where, residuals, MultiHeadAttentionResiduals)
        *layers, output, size = projected(residuals.query.X, residuals.key.X)
        dY, doutput = output.backward(of_output, dy)
        d, dbias, dinside = inside.backward(of_heads, dY.reshape(*dy.shape[:2], inside.heads, size))
        rows = (A.reshape(*A.shape[:2], A.shape[2] * size) for A in d)
        pairs = [layer.backward(*one) for layer, *one in zip(layers, of_three, rows, strict=True)]
        (dx_q, dx_k, dx_v), three = zip(*pairs, strict=True)
        dX, dcontext = (dx_q, dx_k + dx_v) if form.context else (dx_q + dx_k + dx_v, None)
        dx = Tokens(dX, context=dcontext, bias=dbias) if form.tokens else dX
        return dx, MultiHeadAttentionParams._make([*three, doutput, *dinside])

    return made_by(where, composed(init, forward, backward))
