"""Backpropagation through time: T small products added up in the loop, or one product after it.

python docs/figures/bptt.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from _style import COLOR, EXAMPLES, canvas, cells, outline, save, say, svg

from handgrad.rules.sequences.rnn import rnn_backward, rnn_forward

jax.config.update("jax_enable_x64", True)
WIDTH, CELL = 660, (19, 19)
BATCH, STEPS, N_IN, N = 2, 4, 2, 3


def numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H_prev, Delta, dU) of a small rnn: the states before each step, the cotangents, and the recurrent gradient."""
    rng = np.random.default_rng(3)
    X, W, U, b, H0, dH = (
        jnp.asarray(rng.standard_normal(s))
        for s in ((BATCH, STEPS, N_IN), (N_IN, N), (N, N), (N,), (BATCH, N), (BATCH, STEPS, N))
    )
    (_, last), residuals = rnn_forward(X, W, 0.5 * U, b, H0)
    dU = rnn_backward(residuals, (dH, 0 * last))[2]
    return np.asarray(dU.A), np.asarray(dU.Delta), np.asarray(dU.sum())


def in_the_loop(axes, H, Delta, y: float) -> None:
    """For each step, a product of two small matrices, and a plus."""
    x, largest = 26, np.abs(np.einsum("bti,btj->tij", H, Delta)).max()
    for t, hue in enumerate(EXAMPLES):
        left, _ = cells(axes, x, y, H[:, t].T, hue, size=CELL, digits=None, largest=np.abs(H).max())
        high = y + CELL[1] * (N - BATCH) / 2
        right, _ = cells(axes, left + 12, high, Delta[:, t], hue, size=CELL, digits=None, largest=np.abs(Delta).max())
        say(axes, x + CELL[0], y - 15, rf"$H_{t}^{{\mathsf{{T}}}}$", color=hue, fontsize=15)
        say(axes, (left + 12 + right) / 2, y - 15, rf"$\Delta_{t + 1}$", color=hue, fontsize=15)
        say(axes, left + 5, y + 1.5 * CELL[1], r"$\cdot$", fontsize=15)
        say(axes, right + 14, y + 1.5 * CELL[1], "+" if t < STEPS - 1 else "=", fontsize=17)
        x = right + 28
    cells(axes, x + 4, y, np.einsum("bti,btj->ij", H, Delta), COLOR.muted, size=CELL, digits=None, largest=2 * largest)
    say(axes, x + 4 + 1.5 * CELL[0], y - 15, r"$dU$", fontsize=16)


def stacked(axes, H, Delta, dU, y: float) -> None:
    """All steps' columns beside each other times all steps' rows below each other."""
    hues = [hue for hue in EXAMPLES for _ in range(BATCH)]
    rows = [np.swapaxes(M, 0, 1).reshape(-1, N) for M in (H, Delta)]  # time after time
    x, middle = 74, y + STEPS * BATCH * CELL[1] / 2
    left, low = cells(axes, x, middle - 1.5 * CELL[1], rows[0].T, [hues] * N, size=CELL, digits=None)
    say(axes, (x + left) / 2, middle - 1.5 * CELL[1] - 18, r"$H^{\mathsf{T}}$", fontsize=18)
    for t, hue in enumerate(EXAMPLES):
        say(axes, x + (t + 0.5) * BATCH * CELL[0], low + 14, rf"$t = {t + 1}$", color=hue, fontsize=11.5)
    say(axes, left + 24, middle, r"$\cdot$", fontsize=22)
    x = left + 48
    hues = [[hue] * N for hue in hues]
    right, _ = cells(axes, x, y, rows[1], hues, size=CELL, digits=None)
    say(axes, (x + right) / 2, y - 18, r"$\Delta$", fontsize=18)
    for t, hue in enumerate(EXAMPLES):
        say(axes, right + 8, y + (t + 0.5) * BATCH * CELL[1], rf"$t = {t + 1}$", color=hue, fontsize=11.5, ha="left")
    say(axes, right + 72, middle, "=", fontsize=18)
    x, size = right + 96, (44, 28)
    right, _ = cells(axes, x, middle - 1.5 * size[1], dU, COLOR.muted, size=size)
    outline(axes, x, middle - 1.5 * size[1], right - x, 3 * size[1], COLOR.muted)
    say(axes, (x + right) / 2, middle - 1.5 * size[1] - 18, r"$dU$", fontsize=18)


def draw() -> str:
    """The figure, as SVG."""
    H, Delta, dU = numbers()
    figure, axes = canvas(WIDTH, 376)
    say(axes, 22, 26, "In the loop: a small product each step, added up", ha="left", fontsize=15)
    in_the_loop(axes, H, Delta, 74)
    say(axes, 22, 166, "After the loop: the same sum, as one large product", ha="left", fontsize=15)
    stacked(axes, H, Delta, dU, 212)
    return svg(
        figure,
        "Backpropagation through time as one product",
        "Above, four small products of a state's transpose and a cotangent, one each time step, are added to give dU. "
        "Below, the four states side by side times the four cotangents on top of each other give the same dU at once.",
    )


if __name__ == "__main__":
    save(__file__, draw())
