"""What language models add to softmax_cross_entropy: tokens that don't count, class weights, z-loss, softcap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
Z = jnp.asarray(RNG.standard_normal((4, 3, 5)) * 2)
LABELS = np.array([[0, 4, 1], [2, 2, 3], [1, 4, 1], [3, 0, 0]])
CLASS_WEIGHTS = jnp.asarray(RNG.uniform(0.2, 2, 5))
DC = jnp.asarray([1.0, -2.0, 0.5, 0.25])


def both(Z, Y, *class_weights, **options):
    C, residuals = rules.softmax_cross_entropy_forward(Z, Y, *class_weights, **options)
    return C, rules.softmax_cross_entropy_backward(residuals, DC.astype(C.dtype), **options)


EVERYTHING = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 3.0}


@pytest.mark.parametrize("ignore", [-100, 4])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_an_ignored_token_costs_nothing(ignore, options):
    """Whatever its logits are; the rest is what it is without that token."""
    labels = LABELS.copy()
    labels[:, 1] = ignore
    for logits in (Z, Z.at[:, 1].set(jnp.nan), Z.at[:, 1].set(jnp.inf)):
        C, (dZ, _, dw) = both(logits, labels, CLASS_WEIGHTS, ignore_index=ignore, **options)
        rest, (expected, _, expected_dw) = both(Z[:, ::2], labels[:, ::2], CLASS_WEIGHTS, **options)
        np.testing.assert_allclose(C, rest, rtol=1e-14)
        np.testing.assert_allclose(dZ[:, ::2], expected, rtol=1e-14)
        np.testing.assert_allclose(dw, expected_dw, rtol=1e-13)
        assert (dZ[:, 1] == 0).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "uint16"])
def test_an_index_that_the_labels_cannot_name(dtype):
    """-100 and 300 are nobody's label here: they must not wrap round into one."""
    for ignore in (-100, 300) if dtype != "int8" else (300,):
        C, _ = both(Z, LABELS.astype(dtype), ignore_index=ignore)
        np.testing.assert_array_equal(C, both(Z, LABELS)[0])


def test_ignored_and_out_of_range():
    """Only the one index is excused."""
    labels = LABELS.copy()
    labels[0, 0], labels[1, 0] = -100, -99
    C, _ = both(Z, labels, ignore_index=-100)
    assert np.isnan(C).tolist() == [False, True, False, False]


def test_options_that_change_nothing():
    plain = both(Z, LABELS)
    for found in (both(Z, LABELS, jnp.ones(5)), both(Z, LABELS, ignore_index=-1), both(Z, LABELS, z_loss=0)):
        np.testing.assert_array_equal(found[0], plain[0])
        np.testing.assert_array_equal(found[1][0], plain[1][0])
    C, (dZ, *_) = both(Z, LABELS, softcap=1e9)
    np.testing.assert_allclose(C, plain[0], rtol=1e-12)
    np.testing.assert_allclose(dZ, plain[1][0], rtol=1e-12, atol=1e-14)


def test_the_z_loss_is_a_loss_of_its_own():
    C, (dZ, *_) = both(Z, LABELS, z_loss=0.3)
    plain, (expected, *_) = both(Z, LABELS)
    lse, residuals = rules.logsumexp_forward(Z)
    (of_lse,) = rules.logsumexp_backward(residuals, 0.6 * lse * DC[:, None])
    np.testing.assert_allclose(C, plain + 0.3 * (lse**2).sum(1), rtol=1e-13)
    np.testing.assert_allclose(dZ, expected + of_lse, rtol=1e-12, atol=1e-14)


def test_far_beyond_the_cap():
    """At ±1e4 in float32: tanh is ±1, its slope 0, the loss that of logits ±κ."""
    z = jnp.asarray([[1e4, -1e4, -1e4]], jnp.float32)
    C, residuals = rules.softmax_cross_entropy_forward(z, np.array([1]), softcap=30.0)
    (dZ, *_) = rules.softmax_cross_entropy_backward(residuals, jnp.ones(1, jnp.float32), softcap=30.0)
    np.testing.assert_allclose(C, [60.0], rtol=1e-6)
    np.testing.assert_allclose(dZ, np.zeros((1, 3)), atol=1e-6)


def test_a_class_that_is_ruled_out():
    """Logit −∞: it costs nothing where it never happens, class weights or not."""
    z = Z.at[..., 4].set(-jnp.inf)
    C, (dZ, _, dw) = both(z, LABELS % 4, CLASS_WEIGHTS)
    expected, (expected_dZ, _, expected_dw) = both(Z[..., :4], LABELS % 4, CLASS_WEIGHTS[:4])
    np.testing.assert_allclose(C, expected, rtol=1e-13)
    np.testing.assert_allclose(dZ[..., :4], expected_dZ, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(dw, [*expected_dw, 0], rtol=1e-12)
    assert (dZ[..., 4] == 0).all()


def test_as_a_loss_with_class_weights():
    model, loss = hg.linear(5), hg.softmax_cross_entropy(0.1, class_weights=CLASS_WEIGHTS, z_loss=0.1, softcap=5.0)
    params = jax.jit(model.init)(jax.random.key(0), Z)
    value, grads = hg.value_and_grad(model, loss)(params, Z, LABELS)
    expected = jax.value_and_grad(hg.objective(model, loss))(params, Z, LABELS)
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)
    np.testing.assert_allclose(grads.W, expected[1].W, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((Z, LABELS, CLASS_WEIGHTS[1:]), {}, r"class_weights must have shape \(5,\) .*, got float64 \(4,\)"),
        ((Z, LABELS, [1.0] * 5), {}, "class_weights must be an array, got list"),
        ((Z, LABELS, np.ones(5, int)), {}, r"class_weights must have a floating-point dtype, got int64 \(5,\)"),
        ((Z, Z), {"ignore_index": 0}, r"the target Y must be labels where .*, got float64 \(4, 3, 5\)"),
        ((Z, LABELS), {"ignore_index": 0.5}, "ignore_index must be an integer of 32 bits or None, got 0.5"),
        ((Z, LABELS), {"ignore_index": True}, "ignore_index must be an integer of 32 bits or None, got True"),
        ((Z, LABELS), {"ignore_index": 2**31}, "ignore_index must be an integer of 32 bits or None, got 2147483648"),
        ((Z, LABELS), {"z_loss": -0.1}, "z_loss must be a positive number, got -0.1"),
        ((Z, LABELS), {"softcap": -1.0}, "softcap must be a positive number, got -1.0"),
        ((Z, LABELS), {"softcap": float("inf")}, "softcap must be a positive number, got inf"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(hg.InputError, match=f"^softmax_cross_entropy_forward: {message}$"):
        rules.softmax_cross_entropy_forward(*arguments, **options)
