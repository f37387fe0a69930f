"""Loader: every example once, in an order that the seed gives, whichever epoch is asked for; buckets by length."""

import sys
from itertools import chain

import jax
import numpy as np
import optax
import pytest
from helpers import assert_refused, drawn

import handgrad as hg
from handgrad.training import Loader, by_length, fit, init_state

X = np.arange(10)
PAIR = X, 2 * X


def batches(loader, number=0):
    return [tuple(np.asarray(a).tolist() for a in batch) for batch in loader.epoch(number)]


def test_every_example_comes_once_a_pass():
    loader = Loader((X[:8], X[:8] + 100), 4, seed=3)
    epochs = [batches(loader, number) for number in range(3)]
    assert len(loader) == 2
    for epoch in epochs:
        assert sorted(chain(*(x for x, _ in epoch))) == list(range(8))
        assert all(target == [i + 100 for i in x] for x, target in epoch)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[2] == batches(Loader((X[:8], X[:8] + 100), 4, seed=3), 2)
    assert epochs[0] != batches(Loader((X[:8], X[:8] + 100), 4, seed=4))
    assert [tuple(np.asarray(a).tolist() for a in batch) for batch in loader] == epochs[0]


def test_the_last_batch_of_a_pass_is_filled_up_with_weight_0():
    seen = batches(Loader(PAIR, 4, seed=0))
    kept = [[i for i, w in zip(x, weights, strict=True) if w] for x, _, weights in seen]
    assert sorted(chain(*kept)) == X.tolist()
    assert sorted(map(len, kept)) == [2, 4, 4]
    assert all(len(x) == 4 and sum(weights) == 1 for x, _, weights in seen)


def test_epochs_of_some_steps_go_on_where_the_last_one_ended():
    loader = Loader((X[:8], X[:8]), 2, seed=0, steps=3)
    steps = list(chain(*(batches(loader, number) for number in range(4))))
    assert len(loader) == 3
    for a_pass in (steps[:4], steps[4:8], steps[8:]):
        assert sorted(chain(*(x for x, _ in a_pass))) == list(range(8))


def in_buckets():
    """Ten sequences whose elements are their lengths, and labels."""
    lengths = np.array([1, 9, 4, 3, 5, 7, 8, 2, 9, 6])
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    return lengths, labels, by_length([np.full((n, 2), float(n)) for n in lengths], labels, [3, 6, 9, 20])


def test_buckets_by_length():
    """Each batch is from one bucket, padded to its length; no example is lost."""
    lengths, labels, buckets = in_buckets()
    assert [x.X.shape for x, _ in buckets] == [(3, 3, 2), (3, 6, 2), (4, 9, 2)]
    loader, seen = Loader(buckets, 2, seed=1), []
    for x, target, weights in loader:
        steps = np.arange(x.X.shape[1])[None, :, None] < x.lengths[:, None, None]
        assert np.array_equal(x.X, np.broadcast_to(steps * x.lengths[:, None, None], x.X.shape))
        assert x.X.shape == (2, 3 * -(-max(x.lengths) // 3), 2)
        seen += [(int(x.lengths[i]), int(target[i])) for i in np.flatnonzero(weights)]
    assert len(loader) == 6
    assert sorted(seen) == sorted(zip(lengths.tolist(), labels.tolist(), strict=True))


@pytest.mark.slow
def test_training_on_buckets():
    """The objective of every sequence once: without steps that change anything, the mean over all of them."""
    *_, buckets = in_buckets()
    model, loss = hg.chain(hg.rnn(2, returns="last"), hg.linear(3)), hg.softmax_cross_entropy()
    state = init_state(drawn(model, buckets[0][0]), optax.sgd(0.0), jax.random.key(0))
    ((_, metrics),) = fit(model, loss, optax.sgd(0.0), state, Loader(buckets[2:], 2, seed=1), epochs=1)
    x, target = buckets[2]
    np.testing.assert_allclose(metrics["loss"], hg.objective(model, loss)(state.params, x, target), rtol=1e-6)
    fit_of_all = fit(model, loss, optax.sgd(0.1), state, Loader(buckets, 2, seed=1), epochs=2)
    assert [metrics["step"] for _, metrics in fit_of_all] == [6, 12]


def test_bad_input(monkeypatch):
    assert_refused(
        {
            "Loader: batch_size must be a positive integer, got 0": lambda: Loader(PAIR, 0, seed=0),
            "Loader: steps must be a positive integer, got 0": lambda: Loader(PAIR, 1, seed=0, steps=0),
            "Loader: data must have examples, got none": lambda: Loader((X[:0], X[:0]), 1, seed=0),
            "Loader: x and target must have the same batch, got 10 and 3 examples": lambda: Loader(
                (X, X[:3]), 1, seed=0
            ),
            r"by_length: lengths must be ascending, got \[3, 2\]": lambda: by_length([X], X[:1], [3, 2]),
            "by_length: each sequence must have 1 to 9 steps, got one of 10": lambda: by_length([X], X[:1], [3, 9]),
        }
    )
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(hg.InputError, match="Loader: needs grain"):
        Loader(PAIR, 1, seed=0)
