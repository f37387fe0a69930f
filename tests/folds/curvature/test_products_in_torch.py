"""curvlinops' GGN, Hessian and K-FAC on the same numbers: PyTorch's autodiff, another's formulas; float64."""

import jax
import jax.numpy as jnp
import pytest
from folds.networks_in_torch import LABELS, MARKS, as_theirs, both, nn, torch
from in_torch import assert_close
from whole_models import LOSS, normal_params

import handgrad as hg
from handgrad.folds.curvature import ggn_vector_product, hessian_vector_product, kfac_factors, kflr_factors
from handgrad.folds.curvature.blocks import is_block

curvlinops = pytest.importorskip("curvlinops", reason="curvlinops, of the extra `oracles`, is not installed")

pytestmark = MARKS
every_model = pytest.mark.parametrize("name", ["mlp", "pooled tokens", "images"])


def setting(name):
    """(model, loss, params, x, labels), a direction in both layouts, and what their operators take."""
    model, params, x, network, theirs, labels = both(name)
    v = normal_params(model, x, seed=2)
    arguments = network, nn.CrossEntropyLoss(), list(network.parameters()), [(theirs, labels)]
    return (model, LOSS, params, x, jnp.asarray(LABELS)), v, [*map(torch.tensor, as_theirs(name, v))], arguments


@every_model
def test_products(name):
    ours, v, direction, theirs = setting(name)
    for make, operator in (
        (ggn_vector_product, curvlinops.GGNLinearOperator),
        (hessian_vector_product, curvlinops.HessianLinearOperator),
    ):
        found = jax.jit(lambda v, make=make: make(*ours)(v))(v)
        assert_close(as_theirs(name, found), [one.detach().numpy() for one in operator(*theirs) @ direction])


@pytest.mark.parametrize("fisher", ["type-2", "empirical"])
@pytest.mark.parametrize("mode", ["expand", "reduce"])
@every_model
def test_kfac(name, mode, fisher):
    """The weights' products; their biases have a whole block each, ours a diagonal."""
    ours, v, direction, theirs = setting(name)

    @jax.jit
    def products(v):
        if fisher == "type-2":
            blocks = kflr_factors(*ours, mode)
        else:
            blocks = kfac_factors(hg.value_and_factors(*ours[:2])(*ours[2:])[1], mode)
        return jax.tree.map(lambda block, one: block.times(one), blocks, v, is_leaf=is_block)

    expected = curvlinops.KFACLinearOperator(*theirs, fisher_type=fisher, kfac_approx=mode) @ direction
    found = [one for one in as_theirs(name, products(v)) if one.ndim > 1]
    assert len(found) == 2
    assert_close(found, [one.detach().numpy() for one in expected if one.ndim > 1])
