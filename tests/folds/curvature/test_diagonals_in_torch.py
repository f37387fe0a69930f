"""BackPACK's diagonals and Kronecker factors on the same numbers; float64.

Its estimates draw labels from PyTorch's generator: drawn again from the same seed, they are given to ours, so that both
are of the same samples. Its Kronecker factors of a convolution mix the two forms (patches one by one, cotangents
summed), so that the comparison for kernels is curvlinops', which has both; its factors of a bias are whole blocks.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folds.networks_in_torch import BATCH, LABELS, MARKS, as_theirs, both, nn, torch
from in_torch import assert_close
from whole_models import LOSS

import handgrad as hg
from handgrad.folds.curvature import empirical_fisher_diagonal, ggn_diagonal, kfac_factors, kflr_factors

backpack = pytest.importorskip("backpack", reason="BackPACK, of the extra `oracles`, is not installed")
extensions = pytest.importorskip("backpack.extensions")

pytestmark = MARKS
SAMPLES, SEED = 4, 7


def extended(network, x, labels, extension):
    """Each parameter's attribute after one backward pass."""
    network, loss = backpack.extend(network), backpack.extend(nn.CrossEntropyLoss())
    torch.manual_seed(SEED)
    with backpack.backpack(extension):
        loss(network(x), labels).backward()
    return [getattr(parameter, extension.savefield) for parameter in network.parameters()]


def mean_over_samples(fold, model, params, x, network, theirs):
    """The mean of fold(factors) at each of the labels that an extension draws."""
    torch.manual_seed(SEED)
    categorical = torch.distributions.Categorical(torch.softmax(network(theirs), dim=1))
    labels = jnp.asarray(categorical.sample(torch.Size([SAMPLES])).numpy())
    each = jax.jit(jax.vmap(lambda y: fold(hg.value_and_factors(model, LOSS)(params, x, y)[1])))(labels)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)


@pytest.mark.parametrize("name", ["mlp", "line"])
def test_diagonals(name):
    model, params, x, network, theirs, labels = both(name)
    _, factors = hg.value_and_factors(model, LOSS)(params, x, jnp.asarray(LABELS))
    found = {
        extensions.DiagGGNExact(): ggn_diagonal(model, LOSS, params, x, jnp.asarray(LABELS)),
        extensions.DiagGGNMC(mc_samples=SAMPLES): mean_over_samples(
            empirical_fisher_diagonal, model, params, x, network, theirs
        ),
        # Its gradients are those of the mean: 1 / batch each, squared.
        extensions.SumGradSquared(): jax.tree.map(lambda d: d / BATCH, empirical_fisher_diagonal(factors)),
    }
    for extension, ours in found.items():
        expected = [one.detach().numpy() for one in extended(network, theirs, labels, extension)]
        assert_close(as_theirs(name, ours), expected)


@pytest.mark.parametrize("extension", ["KFLR", "KFAC"])
def test_kronecker_factors(extension):
    model, params, x, network, theirs, labels = both("mlp")
    if extension == "KFLR":
        expected = extended(network, theirs, labels, extensions.KFLR())
        found = kflr_factors(model, LOSS, params, x, jnp.asarray(LABELS))
    else:
        expected = extended(network, theirs, labels, extensions.KFAC(mc_samples=SAMPLES))
        found = mean_over_samples(kfac_factors, model, params, x, network, theirs)
    for ours, (G, A), (block,) in zip((found[0], found[2]), expected[::2], expected[1::2], strict=True):
        A, G, block = (one.detach().numpy() for one in (A, G, block))
        assert_close((ours.W.A, ours.W.G, ours.b.d), (A, G, np.diag(block)))
