"""PyTorch's attention: scaled_dot_product_attention, nn.MultiheadAttention, and the rotary embedding in its complex
numbers; values and every gradient on the same numbers, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import LinearParams, layers, materialize, rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
Q, K, V = (RNG.standard_normal(shape) for shape in ((2, 5, 4, 3), (2, 6, 2, 3), (2, 6, 2, 2)))
DY = RNG.standard_normal((2, 5, 4, 2))
BIAS = RNG.standard_normal((1, 4, 5, 6))
MASK = RNG.uniform(size=(2, 1, 5, 6)) < 0.6
MASK[..., 0] = True
HIDDEN = MASK.copy()
HIDDEN[1, 0, 2] = False  # a query that sees nothing


def assert_close(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def leaf(array):
    return torch.tensor(array, requires_grad=True)


def heads_first(A):
    """(batch, tokens, heads, n) -> (batch, heads, tokens, n)."""
    return A.transpose(1, 2)


def band(tokens, keys, w):
    return np.triu(np.tril(np.ones((tokens, keys), bool)), 1 - w)[None, None]


FORMS = {
    "plain": (rules.attention_forward, rules.attention_backward, {}),
    "tiled": (rules.tiled_attention_forward, rules.tiled_attention_backward, {"tile": 4}),
}
OPTIONS = {
    "nothing": (None, {}, {}),
    "causal": (None, {"causal": True}, {"is_causal": True}),
    "scale": (None, {"scale": 0.3}, {"scale": 0.3}),
    "mask": (MASK, {}, {"attn_mask": MASK}),
    "a query that sees nothing": (HIDDEN, {}, {"attn_mask": HIDDEN}),
    "window": (None, {"causal": True, "window": 2}, {"attn_mask": band(5, 6, 2)}),
}


def in_jax(form, *arguments, **options):
    forward, backward, own = FORMS[form]

    @jax.jit
    def both(*arguments):
        Y, residuals = forward(*arguments, **own, **options)
        return Y, backward(residuals, jnp.asarray(DY), **own, **options)

    return both(*(None if a is None else jnp.asarray(a) for a in arguments))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("mask", "ours", "theirs"), OPTIONS.values(), ids=OPTIONS)
def test_scaled_dot_product_attention(form, mask, ours, theirs):
    """Four heads share two heads of keys and values."""
    Y, cotangents = in_jax(form, Q, K, V, None, mask, **ours)
    leaves = [leaf(a) for a in (Q, K, V)]
    theirs = {name: torch.tensor(v) if name == "attn_mask" else v for name, v in theirs.items()}
    expected = heads_first(F.scaled_dot_product_attention(*map(heads_first, leaves), enable_gqa=True, **theirs))
    expected.backward(torch.tensor(DY))
    assert_close(Y, expected.detach())
    for found, its in zip(cotangents, leaves, strict=False):
        assert_close(found, its.grad)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 4, 5, 6), (2, 1, 5, 6), (2, 4, 5, 6)], ids=str)
def test_a_bias_and_its_gradient(form, shape):
    bias = RNG.standard_normal(shape)
    Y, cotangents = in_jax(form, Q, K, V, bias)
    leaves = [leaf(a) for a in (Q, K, V, bias)]
    expected = F.scaled_dot_product_attention(*map(heads_first, leaves[:3]), attn_mask=leaves[3], enable_gqa=True)
    heads_first(expected).backward(torch.tensor(DY))
    assert_close(Y, heads_first(expected).detach())
    for found, its in zip(cotangents, leaves, strict=False):
        assert_close(found, its.grad)


@pytest.mark.parametrize("form", FORMS)
def test_softcap(form):
    """torch has none in this function: its tanh and its softmax."""
    Y, cotangents = in_jax(form, Q, K, V, BIAS, MASK, softcap=1.5)
    leaves = [leaf(a) for a in (Q, K, V, BIAS)]
    q, k, v = (heads_first(a).repeat_interleave(4 // a.shape[2], dim=1) for a in leaves[:3])
    S = 1.5 * torch.tanh(q @ k.transpose(2, 3) / 3**0.5 / 1.5) + leaves[3]
    P = torch.softmax(S.masked_fill(~torch.tensor(MASK), -torch.inf), -1)
    expected = heads_first(P @ v)
    expected.backward(torch.tensor(DY))
    assert_close(Y, expected.detach())
    for found, its in zip(cotangents, leaves, strict=False):
        assert_close(found, its.grad)


@pytest.mark.parametrize("form", FORMS)
def test_dropout(form):
    """torch's own draw is another; its arithmetic on the same draw is not."""
    key = jax.random.key(5)
    Y, cotangents = in_jax(form, Q, K, V, None, None, key, dropout=0.4)
    columns = [jax.random.bernoulli(jax.random.fold_in(key, j), 0.6, (2, 4, 5)) for j in range(6)]
    R = torch.tensor(np.stack(columns, -1)).double() / 0.6
    leaves = [leaf(a) for a in (Q, K, V)]
    q, k, v = (heads_first(a).repeat_interleave(4 // a.shape[2], dim=1) for a in leaves)
    expected = heads_first((torch.softmax(q @ k.transpose(2, 3) / 3**0.5, -1) * R) @ v)
    expected.backward(torch.tensor(DY))
    assert_close(Y, expected.detach())
    for found, its in zip(cotangents, leaves, strict=False):
        assert_close(found, its.grad)


@pytest.mark.parametrize("tile", [None, 2], ids=["plain", "tiled"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
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
        pairs = zip((jnp.asarray(w.T) for w in W), (None if a is None else jnp.asarray(a) for a in b), strict=True)
        return layers.MultiHeadAttentionParams(*(LinearParams(*pair) for pair in pairs))

    layer = layers.multi_head_attention(2, causal=True, bias=bias, tile=tile)
    y, residuals = layer.forward(from_torch(lambda p: p.detach().numpy()), jnp.asarray(x))
    dx, dparams = layer.backward(residuals, jnp.asarray(dy))
    assert_close(y, expected.detach())
    assert_close(dx, its_x.grad)
    grads, expected_grads = materialize(dparams), from_torch(lambda p: p.grad.numpy())
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(expected_grads))
    for found, its in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(found, its, rtol=0, atol=1e-12 * largest)  # the key's bias has no gradient at all


@pytest.mark.parametrize("form", ["half", "interleaved"])
def test_rotary(form):
    """Pairs as torch's complex numbers, times e^(iθ)."""
    x, dy, positions = RNG.standard_normal((2, 4, 3, 6)), RNG.standard_normal((2, 4, 3, 6)), np.array([0, 3, 1, 60])
    y, residuals = rules.rotary_forward(jnp.asarray(x), jnp.asarray(positions), base=500.0, form=form)
    dx, _ = rules.rotary_backward(residuals, jnp.asarray(dy), base=500.0, form=form)
    its_x = leaf(x)
    theta = torch.outer(torch.tensor(positions).double(), 500.0 ** (-torch.arange(0, 6, 2).double() / 6))
    pairs = its_x.unflatten(3, (2, 3)).transpose(3, 4) if form == "half" else its_x.unflatten(3, (3, 2))
    z = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(theta), theta)[None, :, None]
    turned = torch.view_as_real(z)
    expected = (turned.transpose(3, 4) if form == "half" else turned).flatten(3)
    expected.backward(torch.tensor(dy))
    assert_close(y, expected.detach())
    assert_close(dx, its_x.grad)
