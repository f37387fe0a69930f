"""What factors refuse: nothing is broadcast in silence."""

import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg

BATCH = 4


@pytest.mark.parametrize(
    ("factor", "function"),
    [
        (hg.Outer(jnp.ones((4, 3)), jnp.ones((4, 2))), "Outer.sum"),
        (hg.Total(jnp.ones((4, 3))), "Total.sum"),
        (hg.Hadamard(jnp.ones((4, 3)), jnp.ones((4, 3))), "Hadamard.sum"),
        (hg.PerExample(jnp.ones((4, 3))), "PerExample.sum"),
        (hg.Stacked(hg.Outer(jnp.ones((2, 4, 3)), jnp.ones((2, 4, 2)))), "Stacked.sum"),
        (hg.Shared((hg.Total(jnp.ones((4, 3))), hg.Total(jnp.ones((4, 3))))), "Shared.sum"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize(
    ("weights", "got"),
    [
        (np.ones(3), "float64 (3,)"),
        (np.ones(1), "float64 (1,)"),
        (np.ones((4, 1)), "float64 (4, 1)"),
        (np.float64(2), "float64 ()"),
        ([1.0, 1.0, 1.0, 1.0], "list"),
    ],
    ids=["three", "one", "column", "scalar", "list"],
)
def test_weights_of_a_wrong_length(factor, function, weights, got):
    with pytest.raises(hg.InputError) as raised:
        factor.sum(weights)
    message = str(raised.value)
    assert message.startswith(f"{function}: weights must ")
    assert "(4,)" in message
    assert message.endswith(f"got {got}")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (hg.Outer(jnp.ones((4, 3)), jnp.ones((4, 2))), hg.Outer(jnp.ones((4, 2)), jnp.ones((4, 3)))),
        (hg.Outer(jnp.ones((4, 3)), jnp.ones((4, 2))), hg.Outer(jnp.ones((1, 3)), jnp.ones((1, 2)))),
        (hg.Outer(jnp.ones((4, 3)), jnp.ones((4, 2))), hg.PerExample(jnp.ones((2, 3, 2)))),
        (hg.Total(jnp.ones((4, 3))), hg.Total(jnp.ones((4, 1)))),
        (hg.Hadamard(jnp.ones((4, 3)), jnp.ones((4, 3))), hg.Hadamard(jnp.ones((4, 1)), jnp.ones((4, 1)))),
        (hg.PerExample(jnp.ones((4, 3))), hg.PerExample(jnp.ones((4, 1)))),
    ],
    ids=["transposed", "batch-of-1", "batch-of-2", "total", "hadamard", "per_example"],
)
def test_inner_of_unlike_parameters_is_refused(one, two):
    """What JAX would broadcast, or clamp, is not the inner product of any two gradients."""
    with pytest.raises(hg.InputError):
        one.inner(two)


@pytest.mark.parametrize(("kind", "a", "d"), [(hg.Outer, (4, 6, 3), (6, 4, 2)), (hg.Hadamard, (4, 3), (1, 3))])
def test_sides_of_different_examples(kind, a, d):
    with pytest.raises(hg.InputError, match=f"^{kind.__name__}: Delta must have shape .* examples and tokens.*, got"):
        kind(np.ones(a), np.ones(d)).sum()


def test_sites_of_different_shapes():
    with pytest.raises(hg.InputError, match=r"^Shared: sites must have one \(batch, \*shape\), got \(4, 3\), \(4, 1\)"):
        hg.Shared((hg.Total(np.ones((4, 3))), hg.Total(np.ones((4, 1))))).sum()
