"""Per-example gradients and folds beside Opacus, BackPACK and jax_privacy on the same numbers; float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folds.networks_in_torch import BATCH, LABELS, MARKS, as_theirs, both, nn
from helpers import assert_same
from whole_models import LOSS

import handgrad as hg

pytestmark = MARKS
every_model = pytest.mark.parametrize("name", ["mlp", "tokens", "groups"])


@functools.cache
def ours(name):
    """Every fold, its gradients in PyTorch's layout."""
    model, params, x, *_ = both(name)

    @jax.jit
    def folds(params):
        _, factors = hg.value_and_factors(model, LOSS)(params, x, LABELS)
        like_params = hg.per_example_grads(factors), hg.second_moment(factors), hg.variance(factors, ddof=0)
        return hg.sq_norms(factors, per_leaf=True), like_params

    norms, (grads, *sums) = folds(params)
    return jax.tree.leaves(norms), as_theirs(name, grads, 1), *(as_theirs(name, one) for one in sums)


@every_model
def test_opacus(name):
    """Its per-sample gradients, and the norms that its ghost clipping finds without them."""
    grad_sample = pytest.importorskip("opacus.grad_sample", reason="Opacus, of the extra `oracles`, is not installed")
    norms, grads, *_ = ours(name)
    *_, network, x, labels = both(name)
    module = grad_sample.GradSampleModule(network, loss_reduction="sum")
    nn.functional.cross_entropy(module(x), labels, reduction="sum").backward()
    assert_same(grads, [parameter.grad_sample.numpy() for parameter in module.parameters()], 1e-10)

    *_, network, x, labels = both(name)
    ghost = grad_sample.GradSampleModuleFastGradientClipping(
        network, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True
    )
    nn.functional.cross_entropy(ghost(x), labels, reduction="sum").backward()
    np.testing.assert_allclose(np.sqrt(sum(norms)), ghost.get_norm_sample().numpy(), rtol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "groups"])
def test_backpack(name):
    backpack = pytest.importorskip("backpack", reason="BackPACK, of the extra `oracles`, is not installed")
    extensions = backpack.extensions
    *_, network, x, labels = both(name)
    norms, grads, moments, variance = ours(name)
    network, loss = backpack.extend(network), backpack.extend(nn.CrossEntropyLoss(reduction="sum"))
    kinds = (extensions.BatchGrad(), extensions.BatchL2Grad(), extensions.SumGradSquared(), extensions.Variance())
    with backpack.backpack(*kinds):
        loss(network(x), labels).backward()
    parameters = list(network.parameters())
    assert_same(grads, [p.grad_batch.numpy() for p in parameters], 1e-10)
    # With groups BackPACK 1.7.1 takes the norm as if there were none; its gradients, squared, agree with ours.
    squares = [p.grad_batch.square().flatten(1).sum(1) if p.ndim > 2 else p.batch_l2 for p in parameters]
    assert_same(norms, [square.numpy() for square in squares], 1e-10)
    assert_same(moments, [p.sum_grad_squared.numpy() for p in parameters], 1e-10)
    assert_same(variance, [p.variance.numpy() for p in parameters], 1e-10)


@every_model
@pytest.mark.parametrize("size", [2, None])
def test_jax_privacy(name, size):
    """Sums, values and norms, with padding."""
    clipping = pytest.importorskip(
        "jax_privacy.clipping", reason="jax_privacy, of the extra `oracles`, is not installed"
    )
    model, params, x, *_ = both(name)
    padding = np.arange(BATCH) == 1
    options = {"l2_clip_norm": 0.8, "normalize_by": 3.0, "return_values": True}
    ways = (
        hg.clipped_grad(model, LOSS, return_norms=True, **options),
        clipping.clipped_grad(
            hg.objective(model, LOSS), batch_argnums=(1, 2), microbatch_size=size, return_grad_norms=True, **options
        ),
    )
    run = jax.jit(lambda *given: [way(*given, is_padding_example=jnp.asarray(padding)) for way in ways])
    (mine, of_mine), (other, of_other) = run(params, jnp.asarray(x), jnp.asarray(LABELS))
    assert_same(mine, other, 1e-10)
    np.testing.assert_allclose(of_mine.values[~padding], of_other.values[~padding], rtol=1e-10)
    np.testing.assert_allclose(of_mine.grad_norms[~padding], of_other.grad_norms[~padding], rtol=1e-10)
