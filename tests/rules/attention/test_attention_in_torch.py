"""PyTorch's attention: scaled_dot_product_attention and nn.MultiheadAttention; values and every gradient on the same
numbers, in float64."""

import functools

import jax
import numpy as np
import pytest
from helpers import optimized_jit, together
from in_torch import F, assert_close, torch

from handgrad import LinearParams, layers, materialize, rules

RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal(shape) for shape in ((2, 5, 4, 3), (2, 6, 2, 3), (2, 6, 2, 2)))
DY = RNG.standard_normal((2, 5, 4, 2))
BIAS = RNG.standard_normal((1, 4, 5, 6))
MASK = RNG.uniform(size=(2, 1, 5, 6)) < 0.6
MASK[..., 0] = True
HIDDEN = MASK.copy()
HIDDEN[1, 0, 2] = False  # a query that sees nothing


def leaf(array):
    return torch.tensor(array, requires_grad=True)


def heads_first(A):
    """(batch, tokens, heads, n) -> (batch, heads, tokens, n)."""
    return A.transpose(1, 2)


def repeated(A):
    """Heads first, shared heads written out."""
    return heads_first(A).repeat_interleave(4 // A.shape[2], dim=1)


def band(tokens, keys, w):
    return np.triu(np.tril(np.ones((tokens, keys), bool)), 1 - w)[None, None]


def compare(*rows):
    """(our options, our bias, mask and key, torch's function of the leaves) each: in both forms, all in one program."""
    calls, truths = [], []
    for options, bias, mask, key, function in rows:
        leaves = [leaf(a) for a in (Q, K, V, *(() if bias is None else (bias,)))]
        expected = heads_first(function(*leaves))
        expected.backward(torch.tensor(DY))
        for rule in (rules.attention, rules.tiled_attention.with_options(tile=4)):
            calls.append((rule.with_options(**options), DY, (Q, K, V, bias, mask, key)))
            truths.append((expected.detach(), [its.grad for its in leaves]))
    assert_close(together(calls), truths)


def sdpa(Q, K, V, bias=None, **options):
    """Four heads share two heads of keys and values."""
    mask = bias if "attn_mask" not in options else torch.tensor(options.pop("attn_mask"))
    heads = map(heads_first, (Q, K, V))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=True, **options)


def test_scaled_dot_product_attention():
    """Plain, causal, with a scale, with a mask that leaves a query nothing, with a window."""
    compare(
        ({}, None, None, None, sdpa),
        ({"causal": True}, None, None, None, functools.partial(sdpa, is_causal=True)),
        ({"scale": 0.3}, None, MASK, None, functools.partial(sdpa, scale=0.3, attn_mask=MASK)),
        ({}, None, HIDDEN, None, functools.partial(sdpa, attn_mask=HIDDEN)),
        ({"causal": True, "window": 2}, None, None, None, functools.partial(sdpa, attn_mask=band(5, 6, 2))),
    )


def test_a_bias_and_its_gradient():
    shapes = (1, 4, 5, 6), (2, 1, 5, 6), (2, 4, 5, 6)
    compare(*(({}, RNG.standard_normal(shape), None, None, sdpa) for shape in shapes))


def test_softcap_and_dropout():
    """torch has no softcap in this function: its tanh and its softmax. Its draw of what is dropped is another, but its
    arithmetic on the same draw is not."""
    key = jax.random.key(5)
    drawn = [
        [jax.random.bernoulli(jax.random.fold_in(jax.random.fold_in(key, i), j), 0.6, (2, 4)) for j in range(6)]
        for i in range(5)
    ]
    R = torch.tensor(np.moveaxis(np.array(drawn), (0, 1), (2, 3))).double() / 0.6

    def with_softcap(Q, K, V, bias):
        q, k, v = map(repeated, (Q, K, V))
        S = 1.5 * torch.tanh(q @ k.transpose(2, 3) / 3**0.5 / 1.5) + bias
        return torch.softmax(S.masked_fill(~torch.tensor(MASK), -torch.inf), -1) @ v

    def with_dropout(Q, K, V):
        q, k, v = map(repeated, (Q, K, V))
        return (torch.softmax(q @ k.transpose(2, 3) / 3**0.5, -1) * R) @ v

    compare(({"softcap": 1.5}, BIAS, MASK, None, with_softcap), ({"dropout": 0.4}, None, None, key, with_dropout))


def test_sinks_and_alibi():
    """A sink as torch users write it: one more column of scores, dropped after the softmax. ALiBi as a float mask."""
    sinks, slopes = RNG.standard_normal(4), (0.5, 0.25, 0.125, 0.0625)
    leaves = [leaf(a) for a in (Q, K, V, sinks)]
    q, k, v = map(repeated, leaves[:3])
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(6)))
    alibi = torch.tensor(-np.multiply.outer(slopes, distance))[None]
    S = (q @ k.transpose(2, 3) / 3**0.5 + alibi).masked_fill(~torch.tensor(HIDDEN), -torch.inf)
    P = torch.softmax(torch.cat([S, leaves[3][None, :, None, None].expand(2, 4, 5, 1)], -1), -1)[..., :-1]
    expected = heads_first(P @ v)
    expected.backward(torch.tensor(DY))
    without = F.scaled_dot_product_attention(
        *map(heads_first, (torch.tensor(Q), torch.tensor(K), torch.tensor(V))), attn_mask=alibi, enable_gqa=True
    )
    calls, truths = [], []
    for rule in (rules.attention, rules.tiled_attention.with_options(tile=4)):
        rule = rule.with_options(alibi=slopes)
        calls += [(rule, DY, (Q, K, V, None, HIDDEN, None, sinks)), (rule, DY, (Q, K, V))]
        truths += [(expected.detach(), [its.grad for its in leaves]), heads_first(without)]
    found = [(Y, grads) if i % 2 == 0 else Y for i, (Y, grads) in enumerate(together(calls))]
    assert_close(found, truths)


def test_cross_attention_with_padding():
    """torch.nn.MultiheadAttention of a context of other width, with a key_padding_mask and an additive bias."""
    x, context, dy = (RNG.standard_normal(shape) for shape in ((3, 5, 8), (3, 4, 6), (3, 5, 8)))
    bias, mask = RNG.standard_normal((3, 2, 5, 4)), np.arange(4) < np.array([[4], [1], [3]])
    module = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(module.in_proj_bias)
    its = [leaf(a) for a in (x, context, bias)]
    padding = torch.tensor(~mask)
    hidden = torch.zeros(3, 4, dtype=torch.float64).masked_fill(padding, -torch.inf)
    expected, _ = module(its[0], its[1], its[1], hidden, need_weights=False, attn_mask=its[2].flatten(0, 1))
    expected.backward(torch.tensor(dy))

    def from_torch(pick):
        names = "q_proj_weight", "k_proj_weight", "v_proj_weight"
        W = [pick(w) for w in (*(getattr(module, name) for name in names), module.out_proj.weight)]
        b = [*np.split(pick(module.in_proj_bias), 3), pick(module.out_proj.bias)]
        return layers.MultiHeadAttentionParams(*(LinearParams(w.T, c) for w, c in zip(W, b, strict=True)))

    layer = layers.multi_head_attention(2)

    @optimized_jit
    def both_passes(params, x, dy):
        y, residuals = layer.forward(params, x)
        return y, materialize(layer.backward(residuals, dy))

    tokens = layers.Tokens(x, mask, context=context, bias=bias)
    y, (dx, grads) = both_passes(from_torch(lambda p: p.detach().numpy()), tokens, dy)
    assert_close((y, dx.X, dx.context, dx.bias), (expected.detach(), *(a.grad for a in its)))
    theirs = from_torch(lambda p: p.grad.numpy())
    assert_close(grads._replace(key=grads.key.W), theirs._replace(key=theirs.key.W))  # the key's bias has no gradient


@pytest.mark.parametrize(("tile", "bias"), [(None, True), (2, False)], ids=["plain, bias", "tiled, no bias"])
def test_multi_head_attention(tile, bias):
    """torch keeps query, key and value weights on top of each other, transposed: (3 n, n)."""
    x, dy = RNG.standard_normal((3, 5, 8)), RNG.standard_normal((3, 5, 8))
    module = torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=True, dtype=torch.float64)
    if bias:
        torch.nn.init.normal_(module.in_proj_bias)
        torch.nn.init.normal_(module.out_proj.bias)
    its_x = leaf(x)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    expected, _ = module(its_x, its_x, its_x, attn_mask=causal, need_weights=False)
    expected.backward(torch.tensor(dy))

    def from_torch(pick):
        """Four pairs of W and b from torch's two of each, or from their gradients."""
        W = [*np.split(pick(module.in_proj_weight), 3), pick(module.out_proj.weight)]
        b = [*np.split(pick(module.in_proj_bias), 3), pick(module.out_proj.bias)] if bias else [None] * 4
        pairs = zip((w.T for w in W), b, strict=True)
        return layers.MultiHeadAttentionParams(*(LinearParams(*pair) for pair in pairs))

    layer = layers.multi_head_attention(2, causal=True, bias=bias, tile=tile)

    @optimized_jit
    def both_passes(params, x, dy):
        y, residuals = layer.forward(params, x)
        return y, materialize(layer.backward(residuals, dy))

    y, (dx, grads) = both_passes(from_torch(lambda p: p.detach().numpy()), x, dy)
    assert_close((y, dx), (expected.detach(), its_x.grad))
    expected_grads = from_torch(lambda p: p.grad.numpy())
    largest = max(np.abs(g).max() for g in jax.tree.leaves(expected_grads))
    for found, its in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(found, its, rtol=0, atol=1e-12 * largest)  # the key's bias has no gradient at all
