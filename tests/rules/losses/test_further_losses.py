"""margin_losses, divergences, similarity_losses: equivalent forms, kinks, edges, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import handgrad as hg
from handgrad import rules

RNG = np.random.default_rng(0)
A, Y = (jnp.asarray(RNG.standard_normal((4, 5))) for _ in range(2))
BITS = RNG.integers(0, 2, (4, 5))
DC = jnp.asarray([1.0, -2.0, 0.5, 0.25])


def both(op, *arguments, dC=None, **options):
    C, residuals = getattr(rules, op).forward(*arguments, **options)
    dC = DC.astype(C.dtype) if dC is None else dC
    return C, getattr(rules, op).backward(residuals, dC, **options)


def test_focal_loss_without_focus_is_the_cross_entropy():
    found, expected = (
        both("focal_loss", A, jax.nn.sigmoid(Y), gamma=0.0),
        both("sigmoid_cross_entropy", A, jax.nn.sigmoid(Y)),
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_focal_loss_of_a_sure_answer(gamma, dtype):
    """At ±1e4, and at ±60 with targets in between: no NaN, 0 where right, z's own slope where wrong."""
    z = jnp.asarray([[1e4, -1e4, 1e4, -1e4, 60.0, -60.0]], dtype)
    y = jnp.asarray([[1, 0, 0, 1, 0.5, 0.25]], dtype)
    C, (dZ, dY) = both("focal_loss", z, y, dC=jnp.ones(1, dtype), gamma=gamma)
    assert all(np.isfinite(a).all() for a in (C, dZ, dY))
    np.testing.assert_allclose(dZ[0, :4], [0, 0, 1, -1], atol=1e-6)


def test_hinge_loss_shares_a_tie():
    """As jnp.maximum does, so that jax.grad of optax's loss agrees."""
    a, y = jnp.asarray([[1.0, -1.0, 0.999, 1.001]]), jnp.asarray([[1.0, -1.0, 1.0, 1.0]])
    _, (dA, _) = both("hinge_loss", a, y, dC=jnp.ones(1))
    assert dA.tolist() == [[-0.5, 0.5, -1.0, 0.0]]
    np.testing.assert_array_equal(dA, jax.grad(lambda a: optax.losses.hinge_loss(a, y).sum())(a))


def test_kl_divergence_is_cross_entropy_without_the_entropy():
    Q = jax.nn.softmax(Y)
    C, residuals = rules.softmax_cross_entropy_forward(A, Q)
    L, of_softmax = rules.log_softmax_forward(A)
    divergence, (dL, _) = both("kl_divergence", L, Q)
    np.testing.assert_allclose(divergence, C + (Q * jnp.log(Q)).sum(1), rtol=1e-12)
    np.testing.assert_allclose(
        rules.log_softmax_backward(of_softmax, dL)[0],
        rules.softmax_cross_entropy_backward(residuals, DC)[0],
        rtol=1e-12,
    )
    assert np.abs(both("kl_divergence", L, jnp.exp(L))[0]).max() < 1e-15


def test_kl_divergence_of_what_never_happens():
    """q = 0 costs nothing, of whatever prediction, and its own slope leaves out log q + 1."""
    L, q = jnp.log(jnp.asarray([[0.0, 0.25, 0.75]])), jnp.asarray([[0.0, 0.5, 0.5]])
    C, (dL, _) = both("kl_divergence", L, q, dC=jnp.ones(1))
    np.testing.assert_allclose(C, [0.5 * np.log(2) + 0.5 * np.log(2 / 3)], rtol=1e-14)
    assert dL.tolist() == [[0, -0.5, -0.5]]
    L = L.at[0, 0].set(-3.0)
    assert both("kl_divergence", L, q, dC=jnp.ones(1))[1][1][0, 0] == 3
    logs, (dL, dY) = both("kl_divergence", L, jnp.log(q), dC=jnp.ones(1), log_target=True)
    np.testing.assert_allclose(logs, C, rtol=1e-14)
    assert dY[0, 0] == 0
    np.testing.assert_allclose(dL, [[0, -0.5, -0.5]], rtol=1e-15)
    assert np.isfinite(dY).all()


def test_poisson_loss_is_least_at_the_count():
    counts = RNG.poisson(3, (4, 5)) + 1.0
    for prediction, options in ((np.log(counts), {}), (counts, {"log_input": False, "epsilon": 1e-300})):
        _, (dA, _) = both("poisson_loss", jnp.asarray(prediction), jnp.asarray(counts), **options)
        np.testing.assert_allclose(dA, np.zeros((4, 5)), atol=1e-13)


def test_poisson_loss_in_full_is_nearly_the_log_probability():
    """Stirling's formula leaves out 1 / (12 y)."""
    counts = np.array([[2.0, 5.0, 20.0]])
    C, _ = rules.poisson_loss_forward(jnp.log(jnp.asarray(counts + 1)), jnp.asarray(counts), full=True)
    exact = -jax.scipy.stats.poisson.logpmf(counts, counts + 1).sum()
    np.testing.assert_allclose(C, [exact - (1 / (12 * counts)).sum()], atol=1e-3)


def test_rates_of_zero():
    C, (dA, _) = both("poisson_loss", jnp.zeros((1, 2)), jnp.asarray([[0.0, 2.0]]), dC=jnp.ones(1), log_input=False)
    np.testing.assert_allclose(C, [-2 * np.log(1e-8)], rtol=1e-14)
    np.testing.assert_allclose(dA, [[1, 1 - 2e8]], rtol=1e-14)


def test_cosine_distance_knows_directions_alone():
    C, (dA, dY) = both("cosine_distance", A, Y)
    np.testing.assert_allclose(both("cosine_distance", 3 * A, Y / 7)[0], C, rtol=1e-13)
    np.testing.assert_allclose((dA * A).sum(1), np.zeros(4), atol=1e-15)
    np.testing.assert_allclose((dY * Y).sum(1), np.zeros(4), atol=1e-15)
    np.testing.assert_allclose(both("cosine_distance", A, 2 * A)[0], np.zeros(4), atol=1e-15)
    np.testing.assert_allclose(both("cosine_distance", A, -A)[0], np.full(4, 2.0), rtol=1e-15)
    np.testing.assert_allclose(C, optax.losses.cosine_distance(A, Y), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", ["cosine_distance", "info_nce"])
def test_vectors_of_zeros(op, dtype):
    """Cosine 0 with everything, and a finite gradient; jax.grad of our own forward agrees."""
    a, y = A.at[0].set(0).astype(dtype), Y.at[1].set(0).astype(dtype)
    C, (dA, dY) = both(op, a, y)
    assert all(np.isfinite(c).all() for c in (C, dA, dY))
    if op == "cosine_distance":
        assert C[:2].tolist() == [1, 1]
    forward = getattr(rules, op).forward
    autodiff = jax.grad(lambda a, y: jnp.vdot(DC.astype(dtype), forward(a, y)[0]), argnums=(0, 1))(a, y)
    for one, other in zip((dA, dY), autodiff, strict=True):
        np.testing.assert_allclose(one, other, rtol=3e-5 if dtype == "float32" else 1e-12, atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_info_nce_is_the_cross_entropy_of_similarities(normalize):
    C, (dA, dY) = both("info_nce", A, Y, temperature=0.5, normalize=normalize)
    U, V = ((a / jnp.linalg.norm(a, axis=1, keepdims=True) if normalize else a) for a in (A, Y))
    S = U @ V.T / 0.5
    expected, residuals = rules.softmax_cross_entropy_forward(S, np.arange(4))
    np.testing.assert_allclose(C, expected, rtol=1e-13)
    if not normalize:
        dS = rules.softmax_cross_entropy_backward(residuals, DC)[0]
        np.testing.assert_allclose(dA, dS @ Y / 0.5, rtol=1e-12)
        np.testing.assert_allclose(dY, dS.T @ A / 0.5, rtol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 4.0, 16.0, 64.0])
def test_info_nce_of_queries_that_know_their_keys(gap):
    """Similarities gap I: P − I is made of 1 / (e^gap + 2) without a difference, in float32 too."""
    vectors = jnp.asarray(np.sqrt(gap) * np.eye(3), jnp.float32)
    options = {"temperature": 1.0, "normalize": False}
    C, residuals = rules.info_nce_forward(vectors, vectors, **options)
    cotangents = rules.info_nce_backward(residuals, jnp.ones(3, jnp.float32), **options)
    np.testing.assert_allclose(C, np.full(3, np.log1p(2 * np.exp(-gap))), rtol=2e-6)
    expected = np.sqrt(gap) * (1 - 3 * np.eye(3)) / (np.exp(gap) + 2)
    for found in cotangents:
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_info_nce_policies():
    """The same bits; only one keeps the batch × batch matrix."""
    for policy in ("save", "recompute"):
        C, residuals = rules.info_nce_forward(A, Y, residuals=policy)
        assert (residuals.L is None) == (policy == "recompute")
        cotangents = rules.info_nce_backward(residuals, DC)
        if policy == "save":
            saved = C, *cotangents
    for one, other in zip(saved, (C, *cotangents), strict=True):
        np.testing.assert_array_equal(one, other)


def test_info_nce_of_a_batch_of_one():
    """Nothing to tell apart: no loss, no gradient."""
    C, (dA, dY) = both("info_nce", A[:1], Y[:1], dC=jnp.ones(1))
    assert (C == 0).all()
    assert (dA == 0).all()
    assert (dY == 0).all()


def test_info_nce_in_a_network():
    """The keys are constants, the queries go through a layer; then both, by custom_vjp_rule."""
    model = hg.linear(5)
    loss = hg.layers.info_nce(0.5)
    params = jax.jit(model.init)(jax.random.key(0), A)
    found = hg.value_and_grad(model, loss)(params, A, Y)
    expected = jax.value_and_grad(hg.objective(model, loss))(params, A, Y)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    rule = hg.custom_vjp_rule(rules.info_nce_forward, rules.info_nce_backward, temperature=0.5)
    of_both = jax.grad(lambda A, Y: jnp.sum(jnp.sin(rule(A, Y)) + rule(Y, A)), argnums=(0, 1))(A, Y)
    plain = jax.grad(
        lambda A, Y: jnp.sum(
            jnp.sin(rules.info_nce_forward(A, Y, temperature=0.5)[0]) + rules.info_nce_forward(Y, A, temperature=0.5)[0]
        ),
        argnums=(0, 1),
    )(A, Y)
    for one, other in zip(of_both, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


SHORT = r"must have shape \(4, 5\) like the {}, got float64 \(4, 1\)"


@pytest.mark.parametrize(
    ("op", "arguments", "options", "message"),
    [
        ("hinge_loss", (A, Y[:, :1]), {}, "the target Y " + SHORT.format("prediction A")),
        ("focal_loss", (A, Y[:, :1]), {}, "the target Y " + SHORT.format("logits Z")),
        ("focal_loss", (A, BITS), {"gamma": -1}, "gamma must be a positive number, got -1"),
        ("focal_loss", (A, BITS), {"alpha": 1.5}, r"alpha must be in \[0, 1\] or None, got 1.5"),
        ("kl_divergence", (A, Y[:, :1]), {}, "the target Y " + SHORT.format("log-probabilities L")),
        ("kl_divergence", (A, A > 0), {}, r"the target Y must be of real numbers or integers, got bool \(4, 5\)"),
        ("poisson_loss", (A, Y[:, :1]), {}, "the target Y " + SHORT.format("prediction A")),
        ("poisson_loss", (A, BITS), {"epsilon": 0}, "epsilon must be a positive number, got 0"),
        ("cosine_distance", (A, Y[:, :1]), {}, "the target Y " + SHORT.format("prediction A")),
        ("cosine_distance", (A[0], Y[0]), {}, r"the prediction A must have shape \(batch, .*got float64 \(5,\)"),
        ("cosine_distance", (A, Y), {"epsilon": -1.0}, "epsilon must be a positive number, got -1.0"),
        ("info_nce", (A, Y[:3]), {}, r"the keys Y must have shape \(4, 5\) like the queries A, got float64 \(3, 5\)"),
        ("info_nce", (A, BITS), {}, r"the keys Y must have a floating-point dtype, got int64 \(4, 5\)"),
        ("info_nce", (A[None], Y), {}, r"the queries A must have shape \(batch, n\), got float64 \(1, 4, 5\)"),
        ("info_nce", (A, Y), {"temperature": 0}, "temperature must be a positive number, got 0"),
        ("info_nce", (A, Y), {"residuals": "mask"}, "residuals must be 'save' or 'recompute', got 'mask'"),
    ],
)
def test_bad_input(op, arguments, options, message):
    with pytest.raises(hg.InputError, match=f"^{op}_forward: {message}$"):
        getattr(rules, op).forward(*arguments, **options)
