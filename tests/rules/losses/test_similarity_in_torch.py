"""PyTorch's similarity losses: values and all gradients, in float64."""

import itertools

from rules.losses.in_torch import BATCH, NUMBERS, F, Z, assert_torchs, summed, torch


def info_nce(normalize):
    """F.cross_entropy of the matrix of similarities."""

    def loss(a, y):
        if normalize:
            a, y = F.normalize(a, eps=1e-8), F.normalize(y, eps=1e-8)
        return F.cross_entropy(a @ y.T / 0.3, torch.arange(BATCH), reduction="none")

    return loss


def test_cosine_distance():
    def embedding_loss(a, y):
        return F.cosine_embedding_loss(a, y, torch.ones(BATCH), reduction="none")

    assert_torchs(
        ("cosine_distance", lambda a, y: summed(1 - F.cosine_similarity(a, y, dim=-1)), Z, NUMBERS),
        ("cosine_distance", embedding_loss, Z[:, 0], NUMBERS[:, 0]),
        bar=1e-10,
    )


def test_info_nce():
    every = itertools.product((True, False), ("save", "recompute"))
    options = [{"normalize": normalize, "residuals": kept} for normalize, kept in every]
    rows = [(info_nce(of["normalize"]), Z[:, 0], NUMBERS[:, 0], {"temperature": 0.3, **of}) for of in options]
    assert_torchs(*(("info_nce", *row) for row in rows), bar=1e-10)
