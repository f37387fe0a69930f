"""curvlinops' GGN, Hessian and K-FAC on the same numbers: PyTorch's autodiff, another's formulas; float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.folds.curvature import ggn_vector_product, hessian_vector_product, kfac_factors, kflr_factors
from handgrad.folds.curvature.blocks import is_block

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
curvlinops = pytest.importorskip("curvlinops", reason="curvlinops, of the extra `oracles`, is not installed")
nn = torch.nn

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

RNG = np.random.default_rng(0)
BATCH, CLASSES = 5, 3
LABELS = RNG.integers(0, CLASSES, BATCH)
LOSS = hg.softmax_cross_entropy()


class TokenMean(nn.Module):
    def forward(self, x):
        return x.mean(1)


def mean_over_tokens():
    def forward(params, x, key=None):
        return jnp.mean(x, axis=1), jnp.zeros_like(x)

    def backward(zeros, dy):
        return zeros + jnp.expand_dims(dy, 1) / zeros.shape[1], ()

    return hg.Layer(lambda key, x: (), forward, backward)


MODELS = {
    "mlp": (
        hg.mlp((4, 5, CLASSES), hg.sigmoid()),
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, CLASSES)),
        (BATCH, 4),
    ),
    "pooled tokens": (
        hg.chain(hg.linear(5), hg.tanh(), mean_over_tokens(), hg.linear(CLASSES)),
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), TokenMean(), nn.Linear(5, CLASSES)),
        (BATCH, 6, 4),
    ),
    "convolutions": (
        hg.chain(
            hg.convolution(3, 2, strides=2, padding="VALID"),
            hg.tanh(),
            hg.layers.global_average_pool(),
            hg.linear(CLASSES),
        ),
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2, stride=2), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES)
        ),
        (BATCH, 6, 4, 2),
    ),
}


def to_torch(array, features_first=False):
    """A weight or kernel, features in front; an image, features behind the batch; a bias as it is."""
    array = np.asarray(array)
    if features_first:
        array = np.moveaxis(array, -1, 1)
    elif array.ndim > 1:
        array = np.moveaxis(array, (-1, -2), (0, 1))
    return torch.tensor(np.ascontiguousarray(array))


def from_torch(tensor):
    array = tensor.detach().numpy()
    return np.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array


def setting(name):
    """Both networks with the same parameters, a direction, and the data of each."""
    model, make, shape = MODELS[name]
    x = RNG.standard_normal(shape)
    params, v = (
        jax.tree.map(
            lambda p: jnp.asarray(RNG.standard_normal(p.shape)), jax.eval_shape(model.init, jax.random.key(0), x)
        )
        for _ in range(2)
    )
    network = make().double()
    theirs = list(network.parameters())
    for parameter, array in zip(theirs, jax.tree.leaves(params), strict=True):
        parameter.data = to_torch(array)
    data = [(to_torch(x, features_first=x.ndim == 4) if x.ndim == 4 else torch.tensor(x), torch.tensor(LABELS))]
    return model, params, x, v, network, theirs, data


def assert_close(found, expected):
    for one, two in zip(found, expected, strict=True):
        one, two = np.asarray(one), from_torch(two)
        assert one.shape == two.shape
        assert np.abs(one - two).max() <= 1e-12 * np.abs(two).max()


@pytest.mark.parametrize("name", MODELS)
def test_products(name):
    model, params, x, v, network, theirs, data = setting(name)
    direction = [to_torch(one) for one in jax.tree.leaves(v)]
    for ours, operator in (
        (ggn_vector_product, curvlinops.GGNLinearOperator),
        (hessian_vector_product, curvlinops.HessianLinearOperator),
    ):
        product = jax.jit(lambda params, v, ours=ours: ours(model, LOSS, params, x, jnp.asarray(LABELS))(v))
        expected = operator(network, nn.CrossEntropyLoss(), theirs, data) @ direction
        assert_close(jax.tree.leaves(product(params, v)), expected)


@pytest.mark.parametrize("fisher", ["type-2", "empirical"])
@pytest.mark.parametrize("mode", ["expand", "reduce"])
@pytest.mark.parametrize("name", MODELS)
def test_kfac(name, mode, fisher):
    """The weights' products; their biases have a whole block each, ours a diagonal."""
    model, params, x, v, network, theirs, data = setting(name)

    @jax.jit
    def products(params, v):
        if fisher == "type-2":
            blocks = kflr_factors(model, LOSS, params, x, jnp.asarray(LABELS), mode)
        else:
            blocks = kfac_factors(hg.value_and_factors(model, LOSS)(params, x, jnp.asarray(LABELS))[1], mode)
        return jax.tree.map(lambda block, one: block.times(one), blocks, v, is_leaf=is_block)

    operator = curvlinops.KFACLinearOperator(
        network, nn.CrossEntropyLoss(), theirs, data, fisher_type=fisher, kfac_approx=mode
    )
    expected = operator @ [to_torch(one) for one in jax.tree.leaves(v)]
    pairs = zip(jax.tree.leaves(products(params, v)), expected, strict=True)
    found, expected = zip(*[(one, two) for one, two in pairs if one.ndim > 1], strict=True)
    assert len(found) == 2
    assert_close(found, expected)
