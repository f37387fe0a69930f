"""PyTorch's losses of a difference: values and all gradients, in float64."""

from rules.losses.in_torch import LARGE, NUMBERS, F, Z, assert_torchs, elementwise


def test_regression_losses():
    mse = elementwise(F.mse_loss)
    assert_torchs(
        ("squared_error", mse, Z, NUMBERS),
        ("l2_loss", lambda a, y: mse(a, y) / 2, Z, NUMBERS),
        ("absolute_error", elementwise(F.l1_loss), Z, NUMBERS),
        ("huber_loss", elementwise(F.huber_loss), Z, NUMBERS),
        ("huber_loss", elementwise(F.huber_loss, delta=0.3), Z, NUMBERS, {"delta": 0.3}),
    )
    assert_torchs(("huber_loss", elementwise(F.huber_loss), LARGE, NUMBERS[:3, 0, :4]))
