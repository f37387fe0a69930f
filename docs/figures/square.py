"""A layer's three matrices share three edges, and each of them, or its cotangent, is the product of the other two.

python docs/figures/square.py
"""

import numpy as np
from _network import LOSS, MODEL, numbers
from _style import COLOR, canvas, cells, outline, save, say, svg

import handgrad as hg

WIDTH, CELL, GAP = 712, (32, 25), 10
ENTRY = (1, 1)  # the one that is outlined, with what it is made of


def panel(axes, x: float, matrices: dict, made: str, title: str, formula: str) -> None:
    """A beside Y, W above Y: the one that is made in color, with one entry and the row and column it comes from."""
    top, bottom = 112, 112 + 4 * CELL[1] + GAP
    left, right = x, x + 4 * CELL[0] + GAP
    places = {"A": (left, bottom), "W": (right, top), "Y": (right, bottom)}
    for place, (name, values) in matrices.items():
        hue = COLOR.orange if "d" in name or "D" in name else COLOR.blue
        edge, low = cells(axes, *places[place], values, hue, size=CELL, digits=1, fontsize=10.5)
        if place == made:
            outline(axes, *places[place], edge - places[place][0], low - places[place][1], hue)
        height = top - 17 if place == "W" else low + 17
        say(axes, (places[place][0] + edge) / 2, height, f"${name}$", fontsize=17, color=hue)
    i, j = ENTRY
    column_A = (left + i * CELL[0], bottom, CELL[0], 3 * CELL[1])
    row_A = (left, bottom + i * CELL[1], 4 * CELL[0], CELL[1])
    column_W = (right + j * CELL[0], top, CELL[0], 4 * CELL[1])
    row_W = (right, top + j * CELL[1], 2 * CELL[0], CELL[1])
    column_Y = (right + j * CELL[0], bottom, CELL[0], 3 * CELL[1])
    row_Y = (right, bottom + i * CELL[1], 2 * CELL[0], CELL[1])
    for frame in {"Y": (row_A, column_W), "W": (column_A, column_Y), "A": (row_Y, row_W)}[made]:
        outline(axes, *frame)
    corner = places[made]
    outline(axes, corner[0] + j * CELL[0], corner[1] + i * CELL[1], *CELL)
    say(axes, x, 30, title, fontsize=13, ha="left", color=COLOR.muted)
    say(axes, x, 60, formula, fontsize=19, ha="left")


def draw() -> str:
    """The figure, as SVG."""
    params, X, T = numbers()
    _, residuals = MODEL.forward(params, X)
    _, factors = hg.value_and_factors(MODEL, LOSS)(params, X, T)
    A, W = (np.asarray(v) for v in (residuals[2].X, residuals[2].W))
    Delta, dW = np.asarray(factors[2].W.Delta), np.asarray(factors[2].W.sum())
    dA = np.asarray(hg.rules.linear.backward(residuals[2], Delta)[0])
    figure, axes = canvas(WIDTH, 330)
    step, x = 235, 20
    panel(axes, x, {"A": ("A", A), "W": ("W", W), "Y": ("Y", A @ W)}, "Y", "forward", r"$Y = A\,W$")
    panel(
        axes,
        x + step,
        {"A": ("A", A), "W": ("dW", dW), "Y": (r"\Delta", Delta)},
        "W",
        "the weight's gradient",
        r"$dW = A^{\mathsf{T}} \Delta$",
    )
    panel(
        axes,
        x + 2 * step,
        {"A": ("dA", dA), "W": ("W", W), "Y": (r"\Delta", Delta)},
        "A",
        "to the layer before",
        r"$dA = \Delta\, W^{\mathsf{T}}$",
    )
    return svg(
        figure,
        "The three products of a linear layer",
        "Three panels, with A below left, W above right and Y below right. Forward, an entry of Y is a row of A times "
        "a column of W. An entry of dW is a column of A times a column of Delta, an entry of dA a row of Delta times a "
        "row of W.",
    )


if __name__ == "__main__":
    save(__file__, draw())
