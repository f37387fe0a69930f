"""What strangers' rules brought to light about the checker."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_right, names
from jax.scipy import special

import handgrad as hg

pytestmark = pytest.mark.slow
RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6))
A, B = RNG.standard_normal((4, 4)), RNG.standard_normal((4, 2))
C = A + 1j * RNG.standard_normal((4, 4))
QUICK = {"control": False}


def plain_softmax(X):
    E = jnp.exp(X)
    return E / E.sum(-1, keepdims=True)


def test_the_worst_element_is_the_one_that_is_shown():
    def backward(x, dY):
        return (dY * jnp.cos(x) * jnp.array([1 + 1e-6, 1.0, 3.0]),)

    report = hg.check_rule(lambda x: (jnp.sin(x), x), backward, np.array([0.1, 0.2, 0.3]), **QUICK)
    assert report.rows[0].index == (2,)


def test_a_scalar_output_has_no_examples_to_keep_apart():
    def backward(x, dy):
        return (dy * jnp.prod(x) / x,)

    check_right(hg.check_rule(lambda x: (jnp.prod(x), x), backward, np.array([1.0, -1, 2, 3]), **QUICK))


def test_where_autodiff_is_wrong_its_forward_mode_accuses_nobody():
    def plain_xlogy(x, y):  # right, and differentiated wrong at 0: autodiff takes the branch of the constant
        return jnp.where(x == 0, 0.0, x * jnp.log(y))

    report = hg.check_custom_vjp(special.xlogy, plain_xlogy, np.array([0.0, 0.5, 2]), np.array([0.3, 2, 3]), **QUICK)
    assert (report.verdict, report.culprit) == ("PASS", "autodiff")


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_a_kink_that_shows_on_its_left_alone_is_one(slope):
    def backward(x, dY):
        return (jnp.where(x < 0, -dY, jnp.where(x == 0, -slope * dY, 0)),)

    report = hg.check_rule(lambda x: (jnp.maximum(-x, 0), x), backward, np.array([0.0, 1, -2]), **QUICK)
    assert report.ok, str(report)
    assert len(report.kinks) == 1


def test_a_slope_outside_both_sides_is_no_subgradient():
    def backward(x, dY):
        ties = x == x.max(-1, keepdims=True)
        return (ties * jnp.where(ties.sum(-1, keepdims=True) > 1, 1.5, 1.0) * dY[:, None],)

    report = hg.check_rule(lambda x: (x.max(-1), x), backward, np.array([[1.0, 2, 2, 0], [3, 3, 3, 1]]), **QUICK)
    assert (report.verdict, report.culprit) == ("FAIL", "kink")


def test_autodiffs_nan_on_a_kink_leaves_the_rest_sure():
    def forward(X):
        lengths = jnp.sqrt(jnp.sum(X * X, -1))
        return lengths, (X, lengths)

    def backward(residuals, dY):
        X, lengths = residuals
        return ((dY / jnp.where(lengths == 0, 1, lengths))[:, None] * X,)

    report = hg.check_rule(forward, backward, X[:, :3] * np.array([[1.0], [0], [1], [1]]), **QUICK)
    assert report.ok, str(report)
    assert len(report.kinks) == 3


def test_an_optional_argument_of_nondiff_argnums_may_stay_away():
    assert hg.check_custom_vjp(special.log_ndtr, None, np.array([0.1, 0.2]), **QUICK).verdict == "PASS"


def test_an_unstable_reference_is_not_an_ill_conditioned_function():
    x = np.float32([[59.0, 60, -60], [49, -20, 3]])
    report = hg.check_custom_vjp(jax.nn.softmax, plain_softmax, x, **QUICK)
    assert report.culprit != "conditioning"


def test_what_overflows_by_autodiff_too_is_not_wrong():
    report = hg.check_rule(lambda x: (x * x, x), lambda x, dY: (2 * x * dY,), np.float16([300, 2, 1]), **QUICK)
    assert report.verdict != "FAIL"


def test_ones_own_tolerance_is_the_forward_passs_too():
    def backward(x, dY):
        return (jnp.cos(x) * dY,)

    def forward(x):
        return jnp.sin(x) * (1 + 1e-9), x

    x = np.array([0.5, 1.0, 2.0])
    assert hg.check_rule(forward, backward, x, reference=jnp.sin, **QUICK).verdict == "FAIL"
    assert hg.check_rule(forward, backward, x, reference=jnp.sin, rtol=1e-6, **QUICK).verdict == "PASS"


def test_the_adjoint_identity_sees_a_missing_conjugate():
    report = hg.check_function(lambda z: jnp.sum(jnp.abs(z) ** 2) / 2, lambda z: z, C, **QUICK)
    assert report.reason == "z: conjugate missing"
    assert any(name.startswith("adjoint") for name in names(report))


def test_digits_that_xla_loses_in_a_special_function_are_no_wrong_forward_pass():
    report = hg.check_custom_vjp(
        special.logit, lambda p: jnp.log(p) - jnp.log1p(-p), np.array([0.2, 0.4, 0.41]), **QUICK
    )
    assert report.ok, str(report)


def test_a_zero_bias_of_attentions_keys():
    """Its gradient is 0, the sum of terms that aren't; no formula's rounding of them is wrong, and none is proven."""
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    for tile in (None, 2):
        model = hg.residual(hg.multi_head_attention(2, causal=True, tile=tile))
        params = jax.jit(model.init)(jax.random.key(0), x)
        report = hg.check_model(model, hg.squared_error(), params, x, y, contracts=False, transforms=())
        assert {row.leaf: row.status for row in report.rows if row.status != "PASS"} == {"params.key.b": "INCONCLUSIVE"}
