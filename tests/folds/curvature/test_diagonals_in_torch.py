"""BackPACK's diagonals and Kronecker factors on the same numbers; float64.

Its estimates draw labels from PyTorch's generator: drawn again from the same seed, they are given to ours, so that both
are of the same samples. Its Kronecker factors of a convolution mix the two forms (patches one by one, cotangents
summed), so that the comparison for kernels is curvlinops', which has both; its factors of a bias are whole blocks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.folds.curvature import empirical_fisher_diagonal, ggn_diagonal, kfac_factors, kflr_factors

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
backpack = pytest.importorskip("backpack", reason="BackPACK, of the extra `oracles`, is not installed")
extensions = pytest.importorskip("backpack.extensions")
nn = torch.nn

pytestmark = [
    pytest.mark.third_party,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

RNG = np.random.default_rng(0)
BATCH, CLASSES, SAMPLES, SEED = 5, 3, 4, 7
LABELS = RNG.integers(0, CLASSES, BATCH)
LOSS = hg.softmax_cross_entropy()
MODELS = {
    "mlp": (
        hg.mlp((4, 5, CLASSES), hg.sigmoid()),
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, CLASSES)),
        (BATCH, 4),
    ),
    "convolutions": (
        hg.chain(hg.convolution(3, 2, padding="VALID"), hg.sigmoid(), hg.layers.flatten(), hg.linear(CLASSES)),
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(12, CLASSES)),
        (BATCH, 5, 2),
    ),
}


def setting(name):
    """Both networks with the same parameters."""
    model, make, shape = MODELS[name]
    x = RNG.standard_normal(shape)
    params = jax.tree.map(
        lambda p: jnp.asarray(RNG.standard_normal(p.shape)), jax.eval_shape(model.init, jax.random.key(0), x)
    )
    network = make().double()
    for parameter, array in zip(network.parameters(), jax.tree.leaves(params), strict=True):
        array = np.asarray(array)
        if name == "convolutions" and array.shape == (12, CLASSES):
            # PyTorch flattens (features, space), we (space, features).
            array = array.reshape(4, 3, CLASSES).swapaxes(0, 1).reshape(12, CLASSES)
        array = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 1 else array
        parameter.data = torch.tensor(np.ascontiguousarray(array))
    return model, params, x, network


def extended(network, x, extension):
    """Each parameter's attribute after one backward pass."""
    network, loss = backpack.extend(network), backpack.extend(nn.CrossEntropyLoss())
    X = torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    torch.manual_seed(SEED)
    with backpack.backpack(extension):
        loss(network(X), torch.tensor(LABELS)).backward()
    return [getattr(parameter, extension.savefield) for parameter in network.parameters()]


def labels_drawn(network, x):
    """(SAMPLES, batch): the labels that an extension drew."""
    torch.manual_seed(SEED)
    probabilities = torch.softmax(network(torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))), dim=1)
    return jnp.asarray(torch.distributions.Categorical(probabilities).sample(torch.Size([SAMPLES])).numpy())


def from_torch(tensor, shape):
    array = tensor.detach().numpy()
    if array.shape == (CLASSES, 12):
        array = array.reshape(CLASSES, 3, 4).swapaxes(1, 2).reshape(CLASSES, 12)
    return np.moveaxis(array, (0, 1), (-1, -2)) if len(shape) > 1 else array


def assert_close(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def mean_over_samples(fold, model, params, x, labels):
    """The mean of fold(factors) at each of the labels drawn."""

    def of_one(y):
        return fold(hg.value_and_factors(model, LOSS)(params, x, y)[1])

    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), jax.jit(jax.vmap(of_one))(labels))


@pytest.mark.parametrize("name", MODELS)
def test_diagonals(name):
    model, params, x, network = setting(name)
    _, factors = hg.value_and_factors(model, LOSS)(params, x, jnp.asarray(LABELS))
    found = {
        extensions.DiagGGNExact(): ggn_diagonal(model, LOSS, params, x, jnp.asarray(LABELS)),
        extensions.DiagGGNMC(mc_samples=SAMPLES): mean_over_samples(
            empirical_fisher_diagonal, model, params, x, labels_drawn(network, x)
        ),
        # Its gradients are those of the mean: 1 / batch each, squared.
        extensions.SumGradSquared(): jax.tree.map(lambda d: d / BATCH, empirical_fisher_diagonal(factors)),
    }
    for extension, ours in found.items():
        for one, two in zip(jax.tree.leaves(ours), extended(network, x, extension), strict=True):
            assert_close(one, from_torch(two, one.shape))


@pytest.mark.parametrize("extension", ["KFLR", "KFAC"])
def test_kronecker_factors(extension):
    model, params, x, network = setting("mlp")
    if extension == "KFLR":
        theirs = extended(network, x, extensions.KFLR())
        found = kflr_factors(model, LOSS, params, x, jnp.asarray(LABELS))
    else:
        theirs = extended(network, x, extensions.KFAC(mc_samples=SAMPLES))
        found = mean_over_samples(kfac_factors, model, params, x, labels_drawn(network, x))
    for ours, (G, A) in ((found[0].W, theirs[0]), (found[2].W, theirs[2])):
        assert_close(ours.A, A.detach().numpy())
        assert_close(ours.G, G.detach().numpy())
    for ours, (block,) in ((found[0].b, theirs[1]), (found[2].b, theirs[3])):
        assert_close(ours.d, np.diag(block.detach().numpy()))
