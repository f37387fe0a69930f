"""PyTorch's cross_entropy: values and all gradients, in float64."""

import functools

import numpy as np
import pytest
from in_torch import LARGE, F, torch
from rules.losses.in_torch import DISTRIBUTIONS, EXTRAS, RNG, SHAPE, N, Z, assert_torchs, cross_entropy, with_extras
from rules.losses.rows import outcomes

OP = "softmax_cross_entropy"
LABELS = RNG.integers(0, N, SHAPE[:2])
IGNORED = np.where([[True, False, False]], -100, LABELS)
CLASS_WEIGHTS = RNG.uniform(0.2, 2, N)


def weighted(z, y, w, **options):
    """The loss is linear in its weights, by which torch refuses to differentiate."""
    return sum(w[k] * cross_entropy(z, y, torch.eye(N, dtype=w.dtype)[k], **options) for k in range(N))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_targets_and_weights(label_smoothing):
    """Labels, an ignored index outside the classes and inside, and distributions, which have a gradient too."""
    rows = []
    every = (LABELS, {}), (IGNORED, {"ignore_index": -100}), (LABELS, {"ignore_index": 2}), (DISTRIBUTIONS, {})
    for target, ignore in every:
        options = {"label_smoothing": label_smoothing, **ignore}
        rows.append((OP, functools.partial(cross_entropy, **options), Z, target, options))
        rows.append((OP, functools.partial(weighted, **options), Z, target, CLASS_WEIGHTS, options))
    assert_torchs(*rows)


def test_large_logits():
    assert_torchs((OP, cross_entropy, LARGE, np.array([1, 2, 3])))
    options = {"label_smoothing": 0.1}
    assert_torchs((OP, functools.partial(cross_entropy, **options), LARGE, np.array([0, 3, 1]), options))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_mean_of_torch(label_smoothing):
    """docs/derivations/losses/softmax_cross_entropy.md: divided by the weights of the labels that count."""
    options = {"label_smoothing": label_smoothing, "ignore_index": -100}
    rows = (OP, Z, IGNORED, CLASS_WEIGHTS, options), (OP, Z, DISTRIBUTIONS, CLASS_WEIGHTS)
    (C, *_), (of_distributions, *_) = outcomes(rows)
    z, y, w = torch.tensor(Z).movedim(-1, 1), torch.tensor(IGNORED), torch.tensor(CLASS_WEIGHTS)
    mean = F.cross_entropy(z, y, w, reduction="mean", **options)
    np.testing.assert_allclose(C.sum() / CLASS_WEIGHTS[IGNORED[IGNORED != -100]].sum(), float(mean), rtol=1e-12)
    mean = F.cross_entropy(z, torch.tensor(DISTRIBUTIONS).movedim(-1, 1), w)
    np.testing.assert_allclose(of_distributions.sum() / LABELS.size, float(mean), rtol=1e-12)


def test_z_loss_and_softcap():
    """By torch's autograd of the formulas."""
    rows = [(OP, functools.partial(with_extras, **extra), Z, LABELS, extra) for extra in EXTRAS[:2]]
    assert_torchs(*rows, (OP, functools.partial(with_extras, **EXTRAS[2]), Z, IGNORED, EXTRAS[2]))
