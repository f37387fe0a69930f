"""Losses at the edges: logits and log-probabilities of ±∞, probabilities of 0 and 1, weights of 0, half precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import rules

every_dtype = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])


def both(op, *arguments, dC=None, **options):
    """C and the cotangents, as one program."""

    @jax.jit
    def run(*arguments):
        C, residuals = getattr(rules, op).forward(*arguments, **options)
        of_C = jnp.ones_like(C) if dC is None else jnp.asarray(dC, C.dtype)
        return C, *getattr(rules, op).backward(residuals, of_C, **options)

    return run(*arguments)


def finite(*arrays):
    return all(np.isfinite(np.asarray(a, np.float64)).all() for a in arrays if a is not None)


# A class that is ruled out on both sides: the prediction's logit or log-probability is −∞ (+∞) and the target 0 (1).
RULED_OUT = {
    "softmax_cross_entropy": ([[1.0, -np.inf, 0.5]], [[0.25, 0.0, 0.75]], {}),
    "softmax_cross_entropy-labels": ([[1.0, -np.inf, 0.5]], [2], {}),
    "softmax_cross_entropy-weights": ([[1.0, -np.inf, 0.5]], [[0.25, 0.5, 0.25]], {"class_weights": [1.0, 0.0, 2.0]}),
    "softmax_cross_entropy-sure": ([[1.0, np.inf, 0.5]], [[0.0, 1.0, 0.0]], {}),
    "sigmoid_cross_entropy": ([[-np.inf, np.inf, 0.5]], [[0.0, 1.0, 0.5]], {}),
    "focal_loss": ([[-np.inf, np.inf, 0.5]], [[0.0, 1.0, 0.5]], {}),
    "focal_loss-0": ([[-np.inf, np.inf, 0.5]], [[0.0, 1.0, 0.5]], {"gamma": 0.0}),
    "focal_loss-half": ([[-np.inf, np.inf, 0.5]], [[0.0, 1.0, 0.5]], {"gamma": 0.5, "alpha": 0.25}),
    "binary_cross_entropy": ([[0.0, 1.0, 0.5]], [[0.0, 1.0, 0.5]], {}),
    "kl_divergence": ([[np.log(0.25), -np.inf, np.log(0.75)]], [[0.5, 0.0, 0.5]], {}),
    "kl_divergence-log": ([[np.log(0.25), -np.inf, np.log(0.75)]], [[-0.7, -np.inf, -0.7]], {"log_target": True}),
    "poisson_loss": ([[0.5, -np.inf, 1.0]], [[1.0, 0.0, 2.0]], {}),
    "poisson_loss-full": ([[0.5, -np.inf, 1.0]], [[1.0, 0.0, 2.0]], {"full": True}),
    "poisson_loss-rates": ([[0.5, 0.0, 1.0]], [[1.0, 0.0, 2.0]], {"log_input": False}),
    "hinge_loss": ([[np.inf, -np.inf, 0.5]], [[1.0, -1.0, 1.0]], {}),
    "cosine_distance": ([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]], {}),
}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
@pytest.mark.parametrize("name", RULED_OUT)
def test_what_counts_nothing_has_finite_cotangents(name, dtype):
    """The prediction's, and the target's own: a teacher that rules a class out as well."""
    prediction, target, options = RULED_OUT[name]
    options = dict(options)
    weights = [jnp.asarray(options.pop("class_weights"), dtype)] if "class_weights" in options else []
    target = np.array(target) if name.endswith("labels") else jnp.asarray(target, dtype)
    found = both(name.split("-")[0], jnp.asarray(prediction, dtype), target, *weights, **options)
    assert finite(*found)


def test_a_class_ruled_out_by_teacher_and_student():
    """The whole way to the teacher's logits, and as if the class didn't exist."""
    rule = {
        op: getattr(rules, op)
        for op in (
            "softmax",
            "log_softmax",
            "kl_divergence",
            "softmax_cross_entropy",
            "sigmoid",
            "sigmoid_cross_entropy",
        )
    }

    def divergence(z, t):
        return rule["kl_divergence"](rule["log_softmax"](z), rule["softmax"](t)).sum()

    def cross_entropy(z, t):
        return rule["softmax_cross_entropy"](z, rule["softmax"](t)).sum()

    z, t = jnp.asarray([[1.0, 2.0, -jnp.inf, 0.5]]), jnp.asarray([[0.3, -1.0, -jnp.inf, 2.0]])
    kept = np.array([0, 1, 3])
    for loss in (divergence, cross_entropy):
        found, expected = (
            jax.jit(jax.grad(loss, argnums=(0, 1)))(*given) for given in ((z, t), (z[:, kept], t[:, kept]))
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one[:, kept], other, rtol=1e-12, atol=1e-15)
            assert one[0, 2] == 0

    def bits(z, t):
        return rule["sigmoid_cross_entropy"](z, rule["sigmoid"](t)).sum()

    assert all((d == 0).all() for d in jax.grad(bits, argnums=(0, 1))(t[:, 2:3], t[:, 2:3]))


WEIGHTED = {
    "squared_error": ([[np.inf]], [[0.0]], {}),
    "l2_loss": ([[np.inf]], [[0.0]], {}),
    "absolute_error": ([[np.nan]], [[0.0]], {}),
    "huber_loss": ([[np.nan]], [[0.0]], {}),
    "sigmoid_cross_entropy": ([[-np.inf]], [[1.0]], {}),
    "binary_cross_entropy": ([[np.nan]], [[1.0]], {}),
    "softmax_cross_entropy": ([[np.nan, 0.0]], [[1.0, 0.0]], {}),
    "softmax_cross_entropy-masked": ([[-np.inf, 0.0]], [[1.0, 0.0]], {}),
    "softmax_cross_entropy-nowhere": ([[-np.inf, -np.inf]], [[1.0, 0.0]], {"z_loss": 0.1, "softcap": 3.0}),
    "hinge_loss": ([[-np.inf]], [[1.0]], {}),
    "focal_loss": ([[-np.inf]], [[1.0]], {}),
    "kl_divergence": ([[-np.inf]], [[1.0]], {}),
    "poisson_loss": ([[np.inf]], [[1.0]], {}),
    "poisson_loss-rates": ([[np.inf]], [[1.0]], {"log_input": False}),
    "cosine_distance": ([[np.nan, 1.0]], [[1.0, 0.0]], {}),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weight_of_zero_gives_zero(name):
    """Whatever the numbers are: an example that only fills up a batch."""
    prediction, target, options = WEIGHTED[name]
    given = jnp.asarray(prediction, jnp.float32), jnp.asarray(target, jnp.float32)
    _, *cotangents = both(name.split("-")[0], *given, dC=[0.0], **options)
    assert all((d == 0).all() for d in cotangents if d is not None)


def test_a_weight_of_zero_beside_class_weights():
    """A label that names no class makes NaN of what hears of it, unless it counts 0."""
    given = jnp.zeros((2, 3)), np.array([0, 7]), jnp.ones(3)
    _, dZ, _, dw = both("softmax_cross_entropy", *given, dC=[1.0, 0.0])
    assert finite(dZ, dw)
    assert (dZ[1] == 0).all()
    assert np.isnan(both("softmax_cross_entropy", *given)[1][1]).all()


SIGMOID = hg.rules.sigmoid
BINARY = hg.rules.binary_cross_entropy


@every_dtype
def test_sigmoid_then_binary_cross_entropy(dtype):
    """Over the whole range: finite, of the sign of σ(z) − y, no larger than it; and exact where σ(z) is not rounded."""
    z = jnp.concatenate([jnp.linspace(-60000, 60000, 41), jnp.linspace(-120, 120, 481)]).astype(dtype)
    z, y = (a.ravel() for a in jnp.meshgrid(z, jnp.asarray([0, 1, 0.5, 0.25], dtype), indexing="ij"))
    C, pull = jax.vjp(lambda z, y: BINARY(SIGMOID(z), y), z, y)
    dz, dy = pull(jnp.ones_like(C))
    assert finite(C, dz, dy)
    wide, eps = np.asarray(z, np.float64), float(jnp.finfo(dtype).eps)
    e = np.exp(-np.abs(wide))
    p = np.where(wide > 0, 1, e) / (1 + e)
    expected = p - np.asarray(y, np.float64)
    assert (np.asarray(dz) * expected >= 0).all()
    assert (np.abs(np.asarray(dz, np.float64)) <= np.abs(expected) * (1 + 8 * eps) + 8 * eps).all()
    inner = np.abs(wide) < 2
    np.testing.assert_allclose(np.asarray(dz, np.float64)[inner], expected[inner], atol=8 * eps)
    assert (np.asarray(C) >= 0).all()


@every_dtype
def test_probabilities_of_zero_and_one(dtype):
    """What they count as: the loss of a surely wrong prediction, no jump away from the next number, and its slope."""
    info = jnp.finfo(dtype)
    half_step = float(info.eps) / 4
    least = max(float(info.smallest_subnormal), float(jnp.finfo(jnp.promote_types(dtype, jnp.float32)).tiny))
    a, y = jnp.asarray([0, 1, 0, 1], dtype), jnp.asarray([0, 1, 1, 0], dtype)
    C, dA, dY = both("binary_cross_entropy", a, y)
    np.testing.assert_allclose(
        np.asarray(C, np.float64), [0, 0, -np.log(least), -np.log(half_step)], rtol=float(info.eps)
    )
    largest = float(info.max)
    slopes = [1, -1, -min(largest, 1 / least), min(largest, 1 / half_step)]
    np.testing.assert_allclose(np.asarray(dA, np.float64), slopes, rtol=float(info.eps))
    odds = [-np.log(least), np.log(half_step)] * 2
    np.testing.assert_allclose(np.asarray(dY, np.float64), odds, rtol=float(info.eps))
    below = 1 - float(info.eps) / 2
    before, *_ = both("binary_cross_entropy", jnp.asarray([below], dtype), jnp.zeros(1, dtype))
    assert 0 < float(C[3]) - float(before[0]) < 0.8  # log 2: half of the step
    of_ours = jax.grad(lambda a: rules.binary_cross_entropy_forward(a, y)[0].sum())(a)
    if dtype != jnp.float16:  # where it overflows
        np.testing.assert_allclose(np.asarray(of_ours, np.float64), np.asarray(dA, np.float64), rtol=float(info.eps))


@pytest.mark.parametrize("loss_scale", [1.0, 2.0**15])
def test_a_scaled_loss_of_a_probability_of_zero(loss_scale):
    """Loss scaling, as float16 needs it, makes no infinity of the largest slope."""
    for dtype in (jnp.float16, jnp.float32):
        a, y = jnp.asarray([0, 1, 0, 1], dtype), jnp.asarray([0, 1, 1, 0], dtype)
        _, dA, dY = both("binary_cross_entropy", a, y, dC=np.full(4, loss_scale))
        assert finite(dA)
        assert dtype == jnp.float16 or finite(dY)


FAR = {
    "squared_error": ([[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]], {}),
    "l2_loss": ([[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]], {}),
    "absolute_error": ([[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]], {}),
    "huber_loss": ([[1.0, -1.0, 0.5]], [[0.0, 0.0, 0.0]], {}),
    "hinge_loss": ([[1.0, -1.0, -0.5]], [[1.0, 1.0, -1.0]], {}),
    "sigmoid_cross_entropy": ([[1.0, -1.0, 0.5]], [[0.0, 1.0, 1.0]], {}),
    "focal_loss": ([[1.0, -1.0, 0.5]], [[0.0, 1.0, 1.0]], {}),
    "softmax_cross_entropy": ([[1.0, -1.0, 0.5]], [[0.0, 0.5, 0.5]], {}),
    "kl_divergence": ([[-1.0, -1.0, -0.5]], [[0.0, 0.5, 0.5]], {}),
    "poisson_loss": ([[1.0, 2.0, 0.5]], [[0.0, 3.0, 1.0]], {"log_input": False}),
    "cosine_distance": ([[1.0, -1.0, 0.5]], [[2.0, 1.0, 1.0]], {}),
}


@pytest.mark.parametrize(
    ("dtype", "scale"), [(jnp.float16, 1e4), (jnp.float32, 1e30), (jnp.float16, 1e-4), (jnp.float32, 1e-30)]
)
@pytest.mark.parametrize("op", FAR)
def test_what_fits_is_finite(op, dtype, scale):
    """At 1e±4 in float16 and 1e±30 in float32: value and cotangents against the same in float64, each by itself."""
    prediction, target, options = FAR[op]
    target = np.array(target) * (scale if op in ("squared_error", "cosine_distance", "l2_loss") else 1)
    given = jnp.asarray(np.array(prediction) * scale, dtype), jnp.asarray(target, dtype)
    found = both(op, *given, **options)
    expected = both(op, *(a.astype(jnp.float64) for a in given), **options)
    info = jnp.finfo(dtype)
    for one, exact in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, exact = np.asarray(one, np.float64), np.asarray(exact)
        fits = np.abs(exact) < float(info.max)
        assert (np.isfinite(one) == fits).all()
        np.testing.assert_allclose(
            one[fits], exact[fits], rtol=8 * float(info.eps), atol=64 * float(info.smallest_subnormal)
        )


def test_a_long_sum_in_half_precision():
    """Rounded once: 10,000 errors of 1 in float16, which counts in steps of 8 there."""
    A = jnp.ones((1, 10_001), jnp.float16)
    for op in ("squared_error", "absolute_error", "hinge_loss"):
        C, *_ = both(op, -A if op == "hinge_loss" else A, jnp.ones_like(A) if op == "hinge_loss" else jnp.zeros_like(A))
        assert float(C[0]) == float(jnp.float16(20_002 if op == "hinge_loss" else 10_001))
