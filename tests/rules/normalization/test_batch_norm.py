"""Batch norm: its statistics, the textbook's form of its backward pass, and what couples the examples."""

import jax
import jax.numpy as jnp
import numpy as np
from helpers import optimized_jit, passes
from rules.refusals import refuses

from handgrad import rules

RNG = np.random.default_rng(0)
X, DY = RNG.standard_normal((3, 4, 6)) + 2, RNG.standard_normal((3, 4, 6))
GAMMA, BETA = RNG.standard_normal((2, 6))


def test_statistics_textbook_form_inference_and_coupling():
    @optimized_jit
    def everything(X, gamma, beta, dY):
        (_, kept), (_, recomputed) = (
            rules.batch_norm.with_options(residuals=policy).forward(X, gamma, beta) for policy in ("save", "recompute")
        )
        training, given = (X, gamma, beta), (X, gamma, beta, kept.mean, kept.variance)
        first = dY.at[1:].set(0)
        row, (of_row, *_) = passes(rules.batch_norm, dY[:1, 0], X[:1, 0], gamma, beta)
        return {
            "statistics": [(one.mean, one.variance) for one in (kept, recomputed)],
            "training": passes(rules.batch_norm, dY, *training),
            "inference": passes(rules.batch_norm_inference, dY, *given),
            "of one cotangent": [
                passes(rule, first, *of)[1][0]
                for rule, of in ((rules.batch_norm, training), (rules.batch_norm_inference, given))
            ],
            "one row": (row, of_row),
        }

    found = jax.tree.map(np.asarray, everything(X, GAMMA, BETA, DY))
    for mean, variance in found["statistics"]:
        np.testing.assert_allclose(mean, X.mean((0, 1)), rtol=1e-14)
        np.testing.assert_allclose(variance, X.var((0, 1)), rtol=1e-13)

    # The textbook: dX = γ R / N (N dY − dβ − X̂ dγ), with the sums that are the parameters' gradients.
    Y, (dX, dgamma, dbeta) = found["training"]
    N, R = 12, 1 / np.sqrt(X.var((0, 1)) + 1e-5)
    A = (X - X.mean((0, 1))) * R
    np.testing.assert_allclose(dX, GAMMA * R / N * (N * DY - dbeta - A * dgamma), rtol=1e-11, atol=1e-13)

    # With the batch's own statistics inference is training in value; the statistics' cotangents carry the rest of dX.
    again, (direct, dgamma_too, dbeta_too, dmean, dvariance) = found["inference"]
    np.testing.assert_allclose(again, Y, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose((dgamma_too, dbeta_too), (dgamma, dbeta), rtol=1e-12)
    through_statistics = dmean / N + dvariance * 2 * (X - X.mean((0, 1))) / N
    np.testing.assert_allclose(direct + through_statistics, dX, rtol=1e-11, atol=1e-13)

    # A cotangent at one example moves every row of dX, except with given statistics.
    training, inference = found["of one cotangent"]
    assert (np.abs(training[1:]).max((1, 2)) > 1e-3).all()
    assert (inference[1:] == 0).all()

    # One row is its own mean: Y is beta, and X has no say.
    row, dX = found["one row"]
    assert (row[0] == BETA).all()
    assert (dX == 0).all()


def test_statistics_do_not_promote():
    """float32 averages beside a bfloat16 network leave it a bfloat16 one; their cotangents are in float32."""
    dY, *narrow = (a.astype(jnp.bfloat16) for a in (DY, X, GAMMA, BETA))
    wide = [a.astype(np.float32) for a in (BETA, GAMMA**2)]
    found = jax.eval_shape(lambda *of: passes(rules.batch_norm_inference, *of), dY, *narrow, *wide)
    assert [str(a.dtype) for a in jax.tree.leaves(found)] == ["bfloat16"] * 4 + ["float32"] * 2


def test_statistics_fit_the_features():
    for name in ("mean", "variance"):
        for wrong in (np.ones(5), np.ones((1, 6)), None, 1.0, np.ones(6, int)):
            given = {"mean": BETA, "variance": GAMMA**2} | {name: wrong}
            verb = "have" if isinstance(wrong, np.ndarray) else "be"
            refuses(rules.batch_norm_inference, f"{name} must {verb} …, got …", X, None, None, **given)
