"""PyTorch's margin losses: values and all gradients, in float64."""

from rules.losses.in_torch import BITS, SHAPE, F, Z, assert_torchs, summed, torch


def two_classes(a, y):
    """Twice the margin loss of the scores −a / 2 and a / 2."""
    scores = torch.stack([-a, a], -1).reshape(-1, 2) / 2
    C = 2 * F.multi_margin_loss(scores, torch.tensor(BITS).reshape(-1), reduction="none")
    return summed(C.reshape(SHAPE)) + 0 * y.sum()


def test_hinge_loss():
    """By the formula, and as the margin loss of two classes, which has no gradient by the target."""
    signs = 2 * BITS - 1
    formula = ("hinge_loss", lambda a, y: summed(F.relu(1 - y * a)), Z, signs.astype(float))
    assert_torchs(formula, ("hinge_loss", two_classes, Z, signs))


def test_rankings_and_triplets():
    """Away from kinks; PyTorch's distance without the number that it adds to differences."""
    signs = torch.tensor(2.0 * BITS - 1, dtype=torch.float64)
    assert_torchs(
        (
            "margin_ranking_loss",
            lambda a, b, y: summed(F.margin_ranking_loss(a, b, y, margin=0.3, reduction="none")),
            Z,
            Z[::-1].copy(),
            signs.numpy(),
            {"margin": 0.3},
        ),
        (
            "triplet_loss",
            lambda a, p, n: summed(F.triplet_margin_loss(a, p, n, margin=0.3, eps=0.0, reduction="none")),
            Z,
            Z[::-1].copy(),
            Z[:, ::-1].copy() + 0.1,
            {"margin": 0.3},
        ),
    )
