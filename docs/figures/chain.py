"""Backpropagation through a chain: forward in order, backward reversed, and between them what each layer keeps.

python docs/figures/chain.py
"""

import numpy as np
from _network import LOSS, MODEL, numbers
from _style import COLOR, arrow, box, canvas, save, say, svg

import handgrad as hg

WIDTH, LEFT, STEP, BOX = 720, 60, 160, (122, 50)
FORWARD, KEPT, BACKWARD, FACTORS = 76, 168, 262, 350  # the upper edges of the four rows

# (layer, forward, backward, symbol of its output, symbols of what it keeps, gradients)
LAYERS = [
    ("linear", r"$Z = X W_1 + \mathbf{1} b_1^{\mathsf{T}}$", r"$dX = dZ\, W_1^{\mathsf{T}}$", "Z", ("X", "W_1"), "dZ"),
    ("tanh", r"$A = \tanh Z$", r"$dZ = dA \circ (1 - A^2)$", "A", ("A",), None),
    ("linear", r"$Y = A W_2 + \mathbf{1} b_2^{\mathsf{T}}$", r"$dA = dY\, W_2^{\mathsf{T}}$", "Y", ("A", "W_2"), "dY"),
    ("loss", r"$C = \Vert Y - T \Vert^2$", r"$dY = 2\,(Y - T)$", "C", ("Y", "T"), None),
]


def shape(array) -> str:
    """An array's shape, as 3×2."""
    return "×".join(str(n) for n in np.shape(array))


def layer(axes, i: int, kept: list[str], factor: str | None) -> None:
    """Column i: the forward box, what it keeps, the backward box, its parameters' factors."""
    name, forward, backward, _, symbols, right = LAYERS[i]
    x = LEFT + i * STEP
    middle = x + BOX[0] / 2
    say(axes, middle, FORWARD - 15, name, fontsize=13)
    box(axes, x, FORWARD, *BOX, COLOR.blue)
    say(axes, middle, FORWARD + BOX[1] / 2, forward, fontsize=14)
    box(axes, x + 6, KEPT, BOX[0] - 12, 44, COLOR.muted, fill=0.08, linestyle=(0, (4, 3)))
    for j, (symbol, size) in enumerate(zip(symbols, kept, strict=True)):
        at = middle + (j - (len(kept) - 1) / 2) * 46
        say(axes, at, KEPT + 15, f"${symbol}$", fontsize=15)
        say(axes, at, KEPT + 33, size, fontsize=11, color=COLOR.muted)
    arrow(axes, (middle, FORWARD + BOX[1] + 2), (middle, KEPT - 3), COLOR.muted, linewidth=1.4)
    arrow(axes, (middle, KEPT + 46), (middle, BACKWARD - 3), COLOR.muted, linewidth=1.4)
    box(axes, x, BACKWARD, *BOX, COLOR.orange)
    say(axes, middle, BACKWARD + BOX[1] / 2, backward, fontsize=14)
    if factor is not None:
        arrow(axes, (middle, BACKWARD + BOX[1] + 2), (middle, FACTORS - 3), COLOR.orange, linewidth=1.4)
        box(axes, x - 12, FACTORS, BOX[0] + 24, 82, COLOR.green)
        left, index = symbols
        index = index[-1]
        say(axes, middle, FACTORS + 19, rf"$dW_{index} = {left}^{{\mathsf{{T}}}} {right}$", fontsize=15.5)
        say(axes, middle, FACTORS + 63, rf"$db_{index} = {right}^{{\mathsf{{T}}}} \mathbf{{1}}$", fontsize=15.5)
        say(axes, middle, FACTORS + 40, factor, fontsize=11, color=COLOR.muted)


def between(axes, sizes: list[str]) -> None:
    """The arrows from layer to layer, each with its array and its shape."""
    names = ["X", *(row[3] for row in LAYERS)]
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        start = LEFT + i * STEP - (STEP - BOX[0]) + 3
        end = LEFT + i * STEP - 3
        if i == 0:
            start = 18
        if i == len(LAYERS):
            end = start + 32
        for y, ends, color, label in (
            (FORWARD, (start, end), COLOR.blue, f"${name}$"),
            (BACKWARD, (end, start), COLOR.orange, f"$d{name}$"),
        ):
            y += BOX[1] / 2
            arrow(axes, (ends[0], y), (ends[1], y), color)
            say(axes, (start + end) / 2, y - 13, label, color=color, fontsize=15)
            say(axes, (start + end) / 2, y + 15, size, color=COLOR.muted, fontsize=10.5)


def draw() -> str:
    """The figure, as SVG."""
    params, X, T = numbers()
    Y, residuals = MODEL.forward(params, X)
    losses, kept_by_loss = LOSS.forward(Y, T)
    _, factors = hg.value_and_factors(MODEL, LOSS)(params, X, T)
    linear1, tanh, linear2 = residuals
    kept = [(linear1.X, linear1.W), (tanh.Y,), (linear2.X, linear2.W), kept_by_loss]
    figure, axes = canvas(WIDTH, 446)
    say(axes, 18, 26, "forward", color=COLOR.blue, fontsize=16, ha="left")
    say(axes, 18, KEPT - 14, "residuals", color=COLOR.muted, ha="left")
    say(axes, 18, BACKWARD - 18, "backward", color=COLOR.orange, fontsize=16, ha="left")
    say(axes, LEFT + STEP + BOX[0] / 2, FACTORS + 29, "factors: two matrices,", color=COLOR.green, fontsize=12.5)
    say(axes, LEFT + STEP + BOX[0] / 2, FACTORS + 47, "multiplied last", color=COLOR.green, fontsize=12.5)
    between(axes, [shape(v) for v in (X, tanh.Y, tanh.Y, Y, losses)])
    for i, arrays in enumerate(kept):
        factor = factors[i].W if i < len(factors) and hasattr(factors[i], "W") else None
        sides = factor and f"Outer({shape(factor.A)}, {shape(factor.Delta)})"
        layer(axes, i, [shape(v) for v in arrays], sides)
    return svg(
        figure,
        "Forward and backward through a chain",
        "Four boxes from left to right compute Z, A, Y and the loss C. Below each box stands what it keeps. A row of "
        "backward boxes passes dC, dY, dA, dZ and dX from right to left. Below the linear layers are their gradients.",
    )


if __name__ == "__main__":
    save(__file__, draw())
