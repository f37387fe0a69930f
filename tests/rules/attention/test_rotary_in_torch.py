"""The rotary position embedding in PyTorch's complex numbers."""

import numpy as np
from in_torch import assert_rules_agree, normal, torch

from handgrad import rules


def test_rotary():
    """Pairs as complex numbers, times e^(iθ)."""
    x, positions = normal(2, 4, 3, 6), np.array([0, 3, 1, 60])
    theta = torch.outer(torch.tensor(positions).double(), 500.0 ** (-torch.arange(0, 6, 2).double() / 6))

    def rotated(x, form):
        pairs = x.unflatten(3, (2, 3)).transpose(3, 4) if form == "half" else x.unflatten(3, (3, 2))
        z = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(theta), theta)[None, :, None]
        real = torch.view_as_real(z)
        return (real.transpose(3, 4) if form == "half" else real).flatten(3)

    assert_rules_agree(
        [
            (rules.rotary.with_options(base=500.0, form=form), lambda x, _, form=form: rotated(x, form), (x, positions))
            for form in ("half", "interleaved")
        ]
    )
