"""Per-example gradients and folds beside Opacus, BackPACK and jax_privacy on the same numbers; float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same

import handgrad as hg
from handgrad import layers

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
nn = torch.nn

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

RNG = np.random.default_rng(0)
BATCH = 4
LOSS = hg.softmax_cross_entropy()
LABELS = RNG.integers(0, 3, BATCH)
IDS = np.array([[0, 2, 2, 4], [1, 1, 1, 1], [5, 0, 5, 0], [3, 2, 1, 0]])


class Last(nn.Module):
    """The features of the last token."""

    def forward(self, x):
        return x[:, -1]


def last() -> hg.Layer:
    return hg.Layer(
        lambda key, x: (),
        lambda params, x, key=None: (x[:, -1], x),
        lambda x, dy: (jnp.zeros_like(x).at[:, -1].set(dy), ()),
    )


MODELS = {
    "mlp": (
        hg.mlp((4, 5, 3), hg.tanh()),
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        RNG.standard_normal((BATCH, 4)),
    ),
    "tokens": (
        hg.chain(hg.embedding(6, 4), hg.linear(5), layers.layer_norm(), hg.tanh(), last(), hg.linear(3)),
        lambda: nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), Last(), nn.Linear(5, 3)),
        IDS,
    ),
    "groups": (
        hg.chain(hg.convolution(4, 3, strides=2, padding="VALID", groups=2), hg.tanh(), layers.flatten(), hg.linear(3)),
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)),
        RNG.standard_normal((BATCH, 7, 2)),
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def as_theirs(name, path, a, batch=0):
    """One parameter's array, with `batch` axes in front, in PyTorch's layout."""
    a, axes = np.asarray(a), a.ndim - batch
    if axes == 1 or path.endswith("table"):
        return a
    if name == "groups" and a.shape[batch:] == (12, 3):  # PyTorch flattens (features, space), we (space, features)
        a = a.reshape(*a.shape[:batch], 3, 4, 3).swapaxes(batch, batch + 1).reshape(a.shape)
    return np.moveaxis(a, (-1, -2), (batch, batch + 1))


def leaves(name, tree, batch=0):
    paths = jax.tree.leaves_with_path(tree)
    return [as_theirs(name, jax.tree_util.keystr(p, simple=True, separator="."), a, batch) for p, a in paths]


@functools.cache
def ours(name):
    """The parameters, and every fold."""
    model, _, x = MODELS[name]
    params = jax.tree.map(
        lambda p: jnp.asarray(np.random.default_rng(1).standard_normal(p.shape)),
        jax.eval_shape(model.init, jax.random.key(0), x),
    )

    @jax.jit
    def folds(params):
        _, factors = hg.value_and_factors(model, LOSS)(params, x, LABELS)
        return {
            "grads": hg.per_example_grads(factors),
            "norms": hg.sq_norms(factors, per_leaf=True),
            "moments": hg.second_moment(factors),
            "variance": hg.variance(factors, ddof=0),
        }

    return params, folds(params)


def theirs(name):
    """Their network with our parameters, its input and its labels."""
    _, make, x = MODELS[name]
    network = make().double()
    for parameter, array in zip(network.parameters(), leaves(name, ours(name)[0]), strict=True):
        assert parameter.shape == array.shape
        parameter.data = torch.tensor(np.ascontiguousarray(array))
    x = torch.tensor(x)
    return network, x.transpose(1, 2) if name == "groups" else x, torch.tensor(LABELS)


@every_model
def test_opacus(name):
    """Its per-sample gradients, and the norms that its ghost clipping finds without them."""
    grad_sample = pytest.importorskip("opacus.grad_sample", reason="Opacus, of the extra `oracles`, is not installed")
    network, x, labels = theirs(name)
    found = ours(name)[1]
    module = grad_sample.GradSampleModule(network, loss_reduction="sum")
    nn.functional.cross_entropy(module(x), labels, reduction="sum").backward()
    expected = [parameter.grad_sample.numpy() for parameter in module.parameters()]
    assert_same([a.copy() for a in leaves(name, found["grads"], 1)], expected, 1e-10)

    network, x, labels = theirs(name)
    ghost = grad_sample.GradSampleModuleFastGradientClipping(
        network, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True
    )
    nn.functional.cross_entropy(ghost(x), labels, reduction="sum").backward()
    norms = np.sqrt(sum(jax.tree.leaves(found["norms"])))
    np.testing.assert_allclose(norms, ghost.get_norm_sample().numpy(), rtol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "groups"])
def test_backpack(name):
    backpack = pytest.importorskip("backpack", reason="BackPACK, of the extra `oracles`, is not installed")
    extensions = backpack.extensions
    network, x, labels = theirs(name)
    found = ours(name)[1]
    network, loss = backpack.extend(network), backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    kinds = (extensions.BatchGrad(), extensions.BatchL2Grad(), extensions.SumGradSquared(), extensions.Variance())
    with backpack.backpack(*kinds):
        loss(network(x), labels).backward()
    parameters = list(network.parameters())
    assert_same(leaves(name, found["grads"], 1), [p.grad_batch.numpy() for p in parameters], 1e-10)
    # With groups BackPACK 1.7.1 takes the norm as if there were none; its gradients, squared, agree with ours.
    squares = [p.grad_batch.square().flatten(1).sum(1) if p.ndim > 2 else p.batch_l2 for p in parameters]
    assert_same(jax.tree.leaves(found["norms"]), [jnp.asarray(square.numpy()) for square in squares], 1e-10)
    assert_same(leaves(name, found["moments"]), [p.sum_grad_squared.numpy() for p in parameters], 1e-10)
    assert_same(leaves(name, found["variance"]), [p.variance.numpy() for p in parameters], 1e-10)


@every_model
@pytest.mark.parametrize("size", [2, None])
def test_jax_privacy(name, size):
    """Sums, values and norms, with padding."""
    clipping = pytest.importorskip(
        "jax_privacy.clipping", reason="jax_privacy, of the extra `oracles`, is not installed"
    )
    model, _, x = MODELS[name]
    params, _ = ours(name)
    padding = np.arange(BATCH) == 1
    options = {"l2_clip_norm": 0.8, "normalize_by": 3.0, "return_values": True}
    ways = (
        hg.clipped_grad(model, LOSS, return_norms=True, **options),
        clipping.clipped_grad(
            hg.objective(model, LOSS), batch_argnums=(1, 2), microbatch_size=size, return_grad_norms=True, **options
        ),
    )
    (mine, of_mine), (other, of_other) = jax.jit(
        lambda *given: [way(*given, is_padding_example=jnp.asarray(padding)) for way in ways]
    )(params, jnp.asarray(x), jnp.asarray(LABELS))
    assert_same(mine, other, 1e-10)
    np.testing.assert_allclose(of_mine.values[~padding], of_other.values[~padding], rtol=1e-10)
    np.testing.assert_allclose(of_mine.grad_norms[~padding], of_other.grad_norms[~padding], rtol=1e-10)
