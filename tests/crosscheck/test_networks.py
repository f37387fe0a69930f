"""Many networks at once: one row each, the wrong one named."""

import jax
import numpy as np
import pytest

import handgrad as hg
from handgrad.crosscheck import Network, check_networks

X = np.random.default_rng(0).standard_normal((5, 4))
Y = np.random.default_rng(1).standard_normal((5, 2))


def network(name, size=1.0, draws=1, x=X, hidden=None, model=None):
    good = hg.chain(hg.linear(3), hidden or hg.tanh(), hg.linear(2))

    def backward(residuals, dy):
        dx, dparams = good.backward(residuals, dy)
        return dx * size, dparams

    model = model or hg.Layer(good.init, good.forward, backward)
    params = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(3), x))
    return Network(name, model, hg.squared_error(), [(params, x + k, Y, None) for k in range(draws)])


def test_all_right():
    report = check_networks([network("a"), network("b", draws=2)])
    assert report.ok, report
    assert sorted(row.leaf.split(":")[0] for row in report.rows) == ["a", "b"]
    assert report.settings["networks"] == 2


@pytest.mark.parametrize("size", [1 + 1e-9, np.nan])
@pytest.mark.parametrize("workers", [1, 2])
def test_one_wrong(size, workers):
    report = check_networks([network("a"), network("b", size), network("c")], workers=workers)
    assert (report.verdict, report.culprit) == ("FAIL", "hand")
    assert report.reason == "1 of 3 are wrong, b: x first"
    assert report.rows[0].leaf == "b: x"
    assert [row.status for row in report.rows] == ["FAIL", "PASS", "PASS"]


def test_wrong_in_the_last_draw_only():
    """Every draw counts, not the first alone."""
    good = hg.chain(hg.linear(2))

    def forward(params, x, key=None):
        y, residuals = good.forward(params, x, key)
        return y, (residuals, x)

    def backward(kept, dy):
        dx, dparams = good.backward(kept[0], dy)
        return dx * (1 + 1e-6 * (kept[1].mean() > 1.5)), dparams

    report = check_networks([network("a", draws=3, model=hg.Layer(good.init, forward, backward))])
    assert report.verdict == "FAIL"


def test_progress_sees_every_row():
    seen = []

    def watch(rows):
        for row in rows:
            seen.append(row.leaf.split(":")[0])
            yield row

    check_networks([network("a"), network("b")], progress=watch)
    assert seen == ["a", "b"]


def test_dead_networks_are_no_pass():
    """relu of what is always negative: no gradient, but for the last layer's."""
    zero = hg.Layer(lambda key, x: (), lambda p, x, key=None: (0 * x[:, :2], x), lambda x, dy: (0 * x, ()))
    report = check_networks([network("a"), network("dead", model=zero)])
    assert report.verdict == "INCONCLUSIVE"
    assert report.reason.startswith("1 of 2 are inconclusive: dead: x: ")


def test_nan_gradients_are_no_pass():
    """Autodiff and the hand-written pass agree on NaN: that proves nothing."""
    bad = hg.Layer(
        lambda key, x: (), lambda p, x, key=None: (jax.numpy.sqrt(0 * x[:, :2]), x), lambda x, dy: (x * np.nan, ())
    )
    report = check_networks([network("nan", model=bad)])
    assert not report.ok, report


def test_none_at_all_is_no_pass():
    """Nothing was checked, so nothing is right."""
    try:
        report = check_networks([])
    except ValueError:
        return
    assert not report.ok, report


def test_a_network_that_raises_is_named():
    def raising(*args):
        raise OSError("gone")

    good = hg.chain(hg.linear(2))
    bad = network("broken", model=good)._replace(model=hg.Layer(good.init, good.forward, raising))
    report = check_networks([network("a"), bad])
    assert report.verdict == "INVALID"
    assert report.reason == "broken raised OSError while being checked: gone"


@pytest.mark.parametrize("x64", [True, False])
def test_the_workers_inherit_x64(x64):
    with jax.enable_x64(x64):
        report = check_networks([network("a", x=X.astype(np.float32))._replace()])
        assert jax.numpy.zeros(1, float).dtype == (np.float64 if x64 else np.float32)
    assert report.rows[0].dtype in (("float32", "float64") if x64 else ("float32",))
