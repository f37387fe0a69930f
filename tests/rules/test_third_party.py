"""PyTorch as a third party: another library's activations, their values and gradients in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 2, 4)) * 2
ROWS = RNG.standard_normal((6, 4)) * 2
LABELS = np.array([0, 3, 1, 1, 2, 0])
LARGE = np.array([[1e4, -1e4, 0.25, 9999.0], [-1e4, -1e4, -9999.5, -1e4], [1e4, 1e4, 1e4, 1e4]])


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def in_torch(function, argument, cotangent):
    """function(argument), and the cotangent pulled back to the argument, by torch's autograd."""
    leaf = torch.tensor(np.asarray(argument), requires_grad=True)
    value = function(leaf)
    value.backward(torch.tensor(np.asarray(cotangent)))
    return value.detach().numpy(), leaf.grad.numpy()


def by_hand(layer, x, seed=1):
    """y, its random cotangent, and dx."""
    y, residuals = layer.forward((), jnp.asarray(x))
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    return y, dy, layer.backward(residuals, jnp.asarray(dy))[0]


ACTIVATIONS = {
    "identity": (hg.identity(), lambda x: x * 1),
    "sigmoid": (hg.sigmoid(), torch.sigmoid),
    "tanh": (hg.tanh(), torch.tanh),
    # By default torch's softplus is x itself beyond 20, an error of 2e-9.
    "softplus": (hg.softplus(), lambda x: F.softplus(x, threshold=500)),
    "relu": (hg.relu(), F.relu),
    "leaky_relu": (hg.leaky_relu(), F.leaky_relu),
    "leaky_relu-0.3": (hg.leaky_relu(0.3), lambda x: F.leaky_relu(x, 0.3)),
    "elu": (hg.elu(), F.elu),
    "elu-0.4": (hg.elu(0.4), lambda x: F.elu(x, 0.4)),
    "selu": (hg.selu(), F.selu),
    "silu": (hg.silu(), F.silu),
    "mish": (hg.mish(), F.mish),
    "gelu": (hg.gelu(), F.gelu),
    "gelu-tanh": (hg.gelu(approximate=True), lambda x: F.gelu(x, approximate="tanh")),
    "softmax": (hg.softmax(), lambda x: torch.softmax(x, -1)),
    "log_softmax": (hg.log_softmax(), lambda x: torch.log_softmax(x, -1)),
    "logsumexp": (hg.logsumexp(), lambda x: torch.logsumexp(x, -1)),
}
activations = pytest.mark.parametrize(("layer", "function"), ACTIVATIONS.values(), ids=ACTIVATIONS.keys())


@activations
def test_activation(layer, function):
    y, dy, dx = by_hand(layer, X)
    expected, expected_dx = in_torch(function, X, dy)
    assert relative_error(y, expected) <= 1e-12
    assert relative_error(dx, expected_dx) <= 1e-12


@activations
def test_large_inputs(layer, function):
    """At ±1e4 every value and every gradient is finite, and torch's."""
    y, dy, dx = by_hand(layer, LARGE)
    expected, expected_dx = in_torch(function, LARGE, dy)
    assert np.isfinite(np.asarray(y)).all()
    assert np.isfinite(np.asarray(dx)).all()
    assert relative_error(y, expected) <= 1e-12
    assert relative_error(dx, expected_dx) <= 1e-12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("middle", [(), (3,), (2, 3)], ids=str)
def test_linear(bias, middle):
    """torch keeps the transposed weight, (n_out, n_in)."""
    x, W, b = RNG.standard_normal((5, *middle, 4)), RNG.standard_normal((4, 3)), RNG.standard_normal(3)
    dy = RNG.standard_normal((5, *middle, 3))
    y, residuals = hg.rules.linear_forward(*map(jnp.asarray, (x, W, b) if bias else (x, W)))
    dX, dW, db = hg.rules.linear_backward(residuals, jnp.asarray(dy))
    leaves = [torch.tensor(a, requires_grad=True) for a in (x, W.T.copy(), b)]
    expected = F.linear(*leaves[: 3 if bias else 2])
    expected.backward(torch.tensor(dy))
    assert relative_error(y, expected.detach().numpy()) <= 1e-12
    assert relative_error(dX, leaves[0].grad.numpy()) <= 1e-12
    assert relative_error(dW.sum(), leaves[1].grad.numpy().T) <= 1e-12
    assert (db is not None) == bias
    if bias:
        assert relative_error(db.sum(), leaves[2].grad.numpy()) <= 1e-12


@pytest.mark.parametrize(
    ("layer", "x", "y", "slope"),
    [
        (hg.sigmoid(), [1e4, -1e4, 0.0], [1, 0, 0.5], [0, 0, 0.25]),
        (hg.tanh(), [1e4, -1e4, 0.0], [1, -1, 0], [0, 0, 1]),
        (hg.softplus(), [1e4, -1e4, 0.0], [1e4, 0, np.log(2)], [1, 0, 0.5]),
        (hg.silu(), [1e4, -1e4, 0.0], [1e4, 0, 0], [1, 0, 0.5]),
        (hg.mish(), [1e4, -1e4, 0.0], [1e4, 0, 0], [1, 0, 0.6]),
        (hg.gelu(), [1e4, -1e4, 0.0], [1e4, 0, 0], [1, 0, 0.5]),
        (hg.gelu(approximate=True), [1e4, -1e4, 0.0], [1e4, 0, 0], [1, 0, 0.5]),
        (hg.elu(0.5), [1e4, -1e4, 1e-30], [1e4, -0.5, 1e-30], [1, 0, 1]),
        (hg.relu(), [1e4, -1e4, 0.0], [1e4, 0, 0], [1, 0, 0]),
    ],
    ids=["sigmoid", "tanh", "softplus", "silu", "mish", "gelu", "gelu-tanh", "elu", "relu"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_where_known(layer, x, y, slope, dtype):
    """What mathematics says at ±1e4 and at 0, in float32 as well."""
    x = jnp.asarray([x], dtype)
    found, residuals = layer.forward((), x)
    dx, _ = layer.backward(residuals, jnp.ones_like(x))
    ulps = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(found[0], np.array(y, dtype), rtol=ulps, atol=0)
    np.testing.assert_allclose(dx[0], np.array(slope, dtype), rtol=ulps, atol=0)


def test_a_network():
    """Not only rule by rule: an mlp with both libraries' own composition."""
    model = hg.mlp((4, 5, 3), hg.gelu())
    params = jax.tree.map(
        lambda p: jnp.asarray(RNG.standard_normal(p.shape)),
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(ROWS.shape, np.float64)),
    )
    value, grads = hg.value_and_grad(model, hg.softmax_cross_entropy(0.1))(params, jnp.asarray(ROWS), LABELS % 3)
    leaves = [torch.tensor(np.asarray(p), requires_grad=True) for p in jax.tree.leaves(params)]
    W, b, V, c = leaves
    loss = F.cross_entropy(F.gelu(torch.tensor(ROWS) @ W + b) @ V + c, torch.tensor(LABELS % 3), label_smoothing=0.1)
    loss.backward()
    assert relative_error(value, loss.detach().numpy()) <= 1e-12
    for found, leaf in zip(jax.tree.leaves(grads), leaves, strict=True):
        assert relative_error(found, leaf.grad.numpy()) <= 1e-12
