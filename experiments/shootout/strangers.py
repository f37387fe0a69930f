"""Thirty-two backward passes as people write them, and a mistake that they make in each.

A rule is a pair of functions `<name>_forward` and `<name>_backward`, in the manner of its source: a textbook, a blog, a
port from NumPy. `STRANGERS` has their inputs and the mistake.
"""

# ruff: noqa: D103, RUF059 (strangers)

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Stranger(NamedTuple):
    """A rule of somebody else.

    Attributes:
      name: of its functions.
      draw: random generator -> its arguments.
      right, wrong: a piece of the backward function, and what it is when it is wrong.
    """

    name: str
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    right: str
    wrong: str


def softmax_forward(x):
    e = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
    s = e / jnp.sum(e, axis=-1, keepdims=True)
    return s, s


def softmax_backward(s, g):
    inner = jnp.sum(g * s, axis=-1, keepdims=True)
    return (s * (g - inner),)


def log_softmax_forward(x):
    y = x - jax.scipy.special.logsumexp(x, axis=-1, keepdims=True)
    return y, y


def log_softmax_backward(y, g):
    total = g.sum(-1, keepdims=True)
    return (g - jnp.exp(y) * total,)


def layernorm_forward(x, gamma, beta):
    mu = x.mean(-1, keepdims=True)
    var = x.var(-1, keepdims=True)
    inv = 1.0 / jnp.sqrt(var + 1e-5)
    xhat = (x - mu) * inv
    return xhat * gamma[None] + beta[None], (xhat, inv, gamma)


def layernorm_backward(saved, dout):
    xhat, inv, gamma = saved
    dbeta = dout.sum(0)
    dgamma = (dout * xhat).sum(0)
    dxhat = dout * gamma[None]
    n = xhat.shape[-1]
    s1 = dxhat.sum(-1, keepdims=True)
    s2 = (dxhat * xhat).sum(-1, keepdims=True)
    dx = inv / n * (n * dxhat - s1 - xhat * s2)
    return dx, dgamma, dbeta


def rmsnorm_forward(x, w):
    r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
    return x * r * w[None], (x, r, w)


def rmsnorm_backward(saved, g):
    x, r, w = saved
    gw = g * w[None]
    c = jnp.mean(gw * x, -1, keepdims=True)
    dx = r * gw - r**3 * x * c
    dw = jnp.sum(g * x * r, axis=0)
    return dx, dw


def batchnorm_forward(x, gamma, beta):
    mu = jnp.mean(x, axis=0)
    xc = x - mu[None]
    var = jnp.mean(xc**2, axis=0)
    std = jnp.sqrt(var + 1e-3)
    xn = xc / std[None]
    return gamma[None] * xn + beta[None], (xc, xn, std, gamma)


def batchnorm_backward(cache, dout):
    xc, xn, std, gamma = cache
    n = dout.shape[0]
    dbeta = dout.sum(axis=0)
    dgamma = (xn * dout).sum(axis=0)
    dxn = gamma[None] * dout
    dxc = dxn / std[None]
    dstd = -(dxn * xc).sum(axis=0) / (std * std)
    dvar = 0.5 * dstd / std
    dxc = dxc + (2.0 / n) * xc * dvar[None]
    dmu = dxc.sum(axis=0)
    return dxc - dmu[None] / n, dgamma, dbeta


def gelu_forward(x):
    u = 0.7978845608028654 * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + jnp.tanh(u)), x


def gelu_backward(x, g):
    t = jnp.tanh(0.7978845608028654 * (x + 0.044715 * x**3))
    du = 0.7978845608028654 * (1 + 3 * 0.044715 * x**2)
    left = 0.5 * (1 + t)
    right = 0.5 * x * (1 - t**2) * du
    return (g * (left + right),)


def silu_forward(x):
    s = jax.nn.sigmoid(x)
    return x * s, (x, s)


def silu_backward(saved, g):
    x, s = saved
    return (g * (s + x * s * (1 - s)),)


def softplus_forward(x):
    return jnp.logaddexp(x, 0.0), x


def softplus_backward(x, g):
    return (g / (1 + jnp.exp(-x)),)


def elu_forward(x):
    y = jnp.where(x > 0, x, jnp.expm1(x))
    return y, (x, y)


def elu_backward(saved, g):
    x, y = saved
    slope = jnp.where(x > 0, 1.0, y + 1)
    return (g * slope,)


def attention_forward(q, k, v):
    scale = q.shape[-1] ** -0.5
    p = jax.nn.softmax(q @ k.T * scale)
    return p @ v, (q, k, v, p)


def attention_backward(saved, do):
    q, k, v, p = saved
    scale = q.shape[-1] ** -0.5
    dv = p.T @ do
    dp = do @ v.T
    ds = p * (dp - jnp.sum(dp * p, -1, keepdims=True))
    dq = ds @ k * scale
    dk = ds.T @ q * scale
    return dq, dk, dv


def causal_attention_forward(q, k, v):
    n, d = q.shape
    mask = jnp.tril(jnp.ones((n, n), bool))
    scores = jnp.where(mask, q @ k.T / jnp.sqrt(1.0 * d), -1e30)
    p = jax.nn.softmax(scores, axis=1)
    return p @ v, (q, k, v, p, mask)


def causal_attention_backward(saved, do):
    q, k, v, p, mask = saved
    d = q.shape[-1]
    dp = do @ v.T
    ds = p * (dp - jnp.sum(dp * p, axis=1, keepdims=True))
    ds = jnp.where(mask, ds, 0.0) / jnp.sqrt(1.0 * d)
    return ds @ k, ds.T @ q, p.T @ do


def dense_forward(x, w, b):
    return x @ w + b[None], (x, w)


def dense_backward(saved, dy):
    x, w = saved
    dx = dy @ w.T
    dw = x.T @ dy
    db = jnp.sum(dy, axis=0)
    return dx, dw, db


def mse_forward(pred, target):
    diff = pred - target
    return jnp.mean(diff**2), diff


def mse_backward(diff, g):
    d = 2 * g * diff / diff.size
    return d, -d


def cross_entropy_forward(logits, labels):
    logp = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logp, labels[:, None], axis=1)[:, 0]
    return -picked.mean(), (logp, labels)


def cross_entropy_backward(saved, g):
    logp, labels = saved
    n, c = logp.shape
    onehot = jax.nn.one_hot(labels, c, dtype=logp.dtype)
    dlogits = g * (jnp.exp(logp) - onehot) / n
    return dlogits, None


def bce_forward(z, y):
    loss = jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z)))
    return loss.sum(), (z, y)


def bce_backward(saved, g):
    z, y = saved
    p = 1 / (1 + jnp.exp(-z))
    return g * (p - y), -g * z


def huber_forward(x, t):
    r = x - t
    small = jnp.abs(r) <= 1.0
    return jnp.where(small, 0.5 * r**2, jnp.abs(r) - 0.5), (r, small)


def huber_backward(saved, g):
    r, small = saved
    dr = g * jnp.where(small, r, jnp.sign(r))
    return dr, -dr


def kl_forward(logp, q):
    return jnp.sum(q * (jnp.log(q) - logp), axis=1), (logp, q)


def kl_backward(saved, g):
    logp, q = saved
    dlogp = -g[:, None] * q
    dq = g[:, None] * (jnp.log(q) - logp + 1)
    return dlogp, dq


def conv1d_forward(x, w):
    k = w.shape[0]
    n = x.shape[1] - k + 1
    cols = jnp.stack([x[:, i : i + n] for i in range(k)], axis=2)  # (batch, n, k, channels)
    return jnp.einsum("bnkc,kco->bno", cols, w), (cols, w)


def conv1d_backward(saved, dy):
    cols, w = saved
    b, n, k, c = cols.shape
    dw = jnp.einsum("bnkc,bno->kco", cols, dy)
    dcols = jnp.einsum("bno,kco->bnkc", dy, w)
    dx = sum(jnp.pad(dcols[:, :, i], ((0, 0), (i, k - 1 - i), (0, 0))) for i in range(k))
    return dx, dw


def mean_pool_forward(x):
    b, n, c = x.shape
    return x.reshape(b, n // 2, 2, c).mean(2), None


def mean_pool_backward(_, dy):
    spread = jnp.repeat(dy, 2, axis=1)
    return (spread / 2,)


def rnn_forward(xs, w, u):
    def step(h, x):
        h = jnp.tanh(x @ w + h @ u)
        return h, h

    h0 = jnp.zeros((xs.shape[1], u.shape[0]), xs.dtype)
    _, hs = jax.lax.scan(step, h0, xs)
    return hs, (xs, w, u, hs)


def rnn_backward(saved, dhs):
    xs, w, u, hs = saved
    previous = jnp.concatenate([jnp.zeros_like(hs[:1]), hs[:-1]])

    def step(dh, inputs):
        g, h = inputs
        dz = (g + dh) * (1 - h**2)
        return dz @ u.T, dz

    _, dzs = jax.lax.scan(step, jnp.zeros_like(hs[0]), (dhs, hs), reverse=True)
    dxs = dzs @ w.T
    dw = jnp.einsum("tbi,tbh->ih", xs, dzs)
    du = jnp.einsum("tbi,tbh->ih", previous, dzs)
    return dxs, dw, du


def lstm_cell_forward(z, c):
    i, f, o, g = jnp.split(z, 4, axis=-1)
    i, f, o, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jax.nn.sigmoid(o), jnp.tanh(g)
    new = f * c + i * g
    return o * jnp.tanh(new), (i, f, o, g, c, new)


def lstm_cell_backward(saved, dh):
    i, f, o, g, c, new = saved
    t = jnp.tanh(new)
    do = dh * t * o * (1 - o)
    dnew = dh * o * (1 - t * t)
    di = dnew * g * i * (1 - i)
    df = dnew * c * f * (1 - f)
    dg = dnew * i * (1 - g * g)
    dz = jnp.concatenate([di, df, do, dg], axis=-1)
    return dz, dnew * f


def gru_cell_forward(a, b, h):
    z = jax.nn.sigmoid(a)
    n = jnp.tanh(b)
    return (1 - z) * n + z * h, (z, n, h)


def gru_cell_backward(saved, dy):
    z, n, h = saved
    dz = dy * (h - n)
    dn = dy * (1 - z)
    da = dz * z * (1 - z)
    db = dn * (1 - n**2)
    dh = dy * z
    return da, db, dh


def embedding_forward(table, ids):
    return table[ids], (table, ids)


def embedding_backward(saved, g):
    table, ids = saved
    d = jnp.zeros_like(table).at[ids].add(g)
    return d, None


def l2norm_forward(x):
    n = jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True) + 1e-12)
    return x / n, (x, n)


def l2norm_backward(saved, g):
    x, n = saved
    dot = jnp.sum(g * x, axis=1, keepdims=True)
    return (g / n - x * dot / n**3,)


def cosine_forward(a, b):
    na = jnp.linalg.norm(a, axis=1)
    nb = jnp.linalg.norm(b, axis=1)
    cos = jnp.sum(a * b, axis=1) / (na * nb)
    return cos, (a, b, na, nb, cos)


def cosine_backward(saved, g):
    a, b, na, nb, cos = saved
    da = b / (na * nb)[:, None] - a * (cos / na**2)[:, None]
    db = a / (na * nb)[:, None] - b * (cos / nb**2)[:, None]
    return g[:, None] * da, g[:, None] * db


def swiglu_forward(a, b):
    s = jax.nn.sigmoid(a)
    return a * s * b, (a, b, s)


def swiglu_backward(saved, g):
    a, b, s = saved
    silu = a * s
    da = g * b * (s + silu * (1 - s))
    db = g * silu
    return da, db


def bilinear_forward(x, w, y):
    return jnp.einsum("bi,ij,bj->b", x, w, y), (x, w, y)


def bilinear_backward(saved, g):
    x, w, y = saved
    dx = g[:, None] * (y @ w.T)
    dy = g[:, None] * (x @ w)
    dw = x.T @ (g[:, None] * y)
    return dx, dw, dy


def inverse_forward(a):
    b = jnp.linalg.inv(a)
    return b, b


def inverse_backward(b, g):
    return (-b.T @ g @ b.T,)


def logdet_forward(a):
    return jnp.linalg.slogdet(a)[1], a


def logdet_backward(a, g):
    return (g * jnp.linalg.inv(a).T,)


def modulus_forward(z):
    return jnp.real(z) ** 2 + jnp.imag(z) ** 2, z


def modulus_backward(z, g):
    return (2 * g * jnp.conj(z),)


def logsumexp_forward(x):
    y = jax.scipy.special.logsumexp(x, axis=1)
    return y, (x, y)


def logsumexp_backward(saved, g):
    x, y = saved
    return (g[:, None] * jnp.exp(x - y[:, None]),)


def rotary_forward(x, angle):
    a, b = jnp.split(x, 2, axis=-1)
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1), (x, c, s)


def rotary_backward(saved, g):
    x, c, s = saved
    a, b = jnp.split(x, 2, axis=-1)
    ga, gb = jnp.split(g, 2, axis=-1)
    da = ga * c + gb * s
    db = gb * c - ga * s
    dangle = ga * (-a * s - b * c) + gb * (a * c - b * s)
    return jnp.concatenate([da, db], -1), dangle


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[Any, ...]]:
    """Normal numbers."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def _labels(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.standard_normal((6, 4)), rng.integers(0, 4, 6)


def _probabilities(rng: np.random.Generator) -> tuple[Any, ...]:
    return np.log(rng.dirichlet(np.ones(4), 6)), rng.dirichlet(np.ones(4), 6)


def _ids(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.standard_normal((7, 3)), np.array([1, 4, 4, 0, 6])


STRANGERS = (
    Stranger("softmax", normal((5, 7)), "jnp.sum(g * s", "jnp.mean(g * s"),
    Stranger("log_softmax", normal((5, 7)), "jnp.exp(y) * total", "y * total"),
    Stranger("layernorm", normal((5, 7), (7,), (7,)), "- xhat * s2", "+ xhat * s2"),
    Stranger("rmsnorm", normal((5, 7), (7,)), "r**3 * x * c", "r**2 * x * c"),
    Stranger("batchnorm", normal((6, 5), (5,), (5,)), "dmu[None] / n", "dmu[None]"),
    Stranger("gelu", normal((5, 7)), "(1 - t**2)", "(1 - t)"),
    Stranger("silu", normal((5, 7)), "s * (1 - s)", "(1 - s)"),
    Stranger("softplus", normal((5, 7)), "jnp.exp(-x)", "jnp.exp(x)"),
    Stranger("elu", normal((5, 7)), "1.0, y + 1", "1.0, y"),
    Stranger("attention", normal((6, 4), (5, 4), (5, 3)), "ds.T @ q * scale", "ds.T @ q"),
    Stranger("causal_attention", normal((6, 4), (6, 4), (6, 3)), "ds @ k, ds.T @ q", "ds.T @ k, ds.T @ q"),
    Stranger("dense", normal((6, 4), (4, 4), (4,)), "dy @ w.T", "dy @ w"),
    Stranger("mse", normal((6, 4), (6, 4)), "2 * g * diff / diff.size", "2 * g * diff / len(diff)"),
    Stranger("cross_entropy", _labels, "- onehot) / n", "- onehot)"),
    Stranger("bce", normal((6, 4), (6, 4)), "(p - y)", "(y - p)"),
    Stranger("huber", normal((6, 4), (6, 4)), "small, r, jnp.sign(r)", "small, jnp.sign(r), r"),
    Stranger("kl", _probabilities, "- logp + 1)", "- logp)"),
    Stranger("conv1d", normal((3, 7, 2), (3, 2, 4)), "(i, k - 1 - i)", "(k - 1 - i, i)"),
    Stranger("mean_pool", normal((3, 6, 2)), "spread / 2", "spread"),
    Stranger("rnn", normal((4, 3, 2), (2, 5), (5, 5)), "dz @ u.T, dz", "dz @ u, dz"),
    Stranger("lstm_cell", normal((5, 12), (5, 3)), "dnew * c * f * (1 - f)", "dnew * f * (1 - f)"),
    Stranger("gru_cell", normal((5, 3), (5, 3), (5, 3)), "dy * (h - n)", "dy * (n - h)"),
    Stranger("embedding", _ids, ".add(g)", ".set(g)"),
    Stranger("l2norm", normal((5, 7)), "x * dot / n**3", "x * dot / n"),
    Stranger("cosine", normal((5, 7), (5, 7)), "a * (cos / na**2)", "b * (cos / na**2)"),
    Stranger("swiglu", normal((5, 7), (5, 7)), "db = g * silu", "db = g * a"),
    Stranger("bilinear", normal((5, 4), (4, 4), (5, 4)), "(y @ w.T)", "(y @ w)"),
    Stranger("inverse", lambda rng: (rng.standard_normal((5, 5)) + 3 * np.eye(5),), "-b.T @ g @ b.T", "b.T @ g @ b.T"),
    Stranger("logdet", lambda rng: (rng.standard_normal((5, 5)) + 3 * np.eye(5),), "inv(a).T", "inv(a)"),
    Stranger(
        "modulus", lambda rng: (rng.standard_normal((5, 7)) + 1j * rng.standard_normal((5, 7)),), "jnp.conj(z)", "z"
    ),
    Stranger("logsumexp", normal((5, 7)), "jnp.exp(x - y[:, None])", "jnp.exp(x)"),
    Stranger("rotary", normal((5, 8), (5, 4)), "gb * c - ga * s", "gb * c + ga * s"),
)
