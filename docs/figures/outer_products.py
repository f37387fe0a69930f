"""A weight's gradient is one product of two matrices, and that product is a sum of outer products, one an example.

python docs/figures/outer_products.py
"""

import numpy as np
from _network import LOSS, MODEL, numbers
from _style import COLOR, EXAMPLES, canvas, cells, number, outline, save, say, svg

import handgrad as hg

WIDTH, CELL = 640, (44, 28)
ENTRY = (1, 0)  # the one that is outlined


def product(axes, A, Delta, dW) -> None:
    """AᵀΔ = dW, column b of Aᵀ and row b of Δ in example b's color."""
    n_examples, n_in = A.shape
    x, y = 104, 92
    right, _ = cells(axes, x, y, A.T, [EXAMPLES[:n_examples]] * n_in, size=CELL)
    for b in range(n_examples):
        say(axes, x + (b + 0.5) * CELL[0], y - 12, f"ex. {b + 1}", color=EXAMPLES[b], fontsize=11)
    say(axes, (x + right) / 2, y - 38, r"$A^{\mathsf{T}}$", fontsize=20)
    outline(axes, x, y + ENTRY[0] * CELL[1], n_examples * CELL[0], CELL[1])
    middle = y + n_in * CELL[1] / 2
    x, top = right + 40, middle - n_examples * CELL[1] / 2
    say(axes, right + 20, middle, r"$\cdot$", fontsize=22)
    right, _ = cells(axes, x, top, Delta, [[hue] * Delta.shape[1] for hue in EXAMPLES[:n_examples]], size=CELL)
    outline(axes, x + ENTRY[1] * CELL[0], top, CELL[0], n_examples * CELL[1])
    for b in range(n_examples):
        say(axes, right + 6, top + (b + 0.5) * CELL[1], f"ex. {b + 1}", color=EXAMPLES[b], fontsize=11, ha="left")
    say(axes, (x + right) / 2, y - 38, r"$\Delta$", fontsize=20)
    say(axes, right + 68, middle, "=", fontsize=18)
    x = right + 92
    right, _ = cells(axes, x, y, dW, COLOR.muted, size=CELL)
    outline_entry(axes, x, y)
    say(axes, (x + right) / 2, y - 38, r"$dW$", fontsize=20)


def outline_entry(axes, x, y) -> None:
    """A frame around ENTRY of the matrix at (x, y)."""
    outline(axes, x + ENTRY[1] * CELL[0], y + ENTRY[0] * CELL[1], *CELL)


def summed(axes, A, Delta, dW) -> None:
    """Each example's column and row around their product; the sum of the products is dW again."""
    n_in, n_out = dW.shape
    y, gap = 312, 5
    x = (WIDTH - (3 * (CELL[0] * (1 + n_out) + gap) + 2 * 30 + 34 + CELL[0] * n_out)) / 2
    largest = max(np.abs(np.outer(a, d)).max() for a, d in zip(A, Delta, strict=True))
    for b, (a, delta) in enumerate(zip(A, Delta, strict=True)):
        hue = EXAMPLES[b]
        inner = x + CELL[0] + gap
        cells(axes, inner, y - CELL[1] - gap, delta, hue, size=CELL, largest=np.abs(Delta).max())
        cells(axes, x, y, a[:, None], hue, size=CELL, largest=np.abs(A).max())
        right, lower = cells(axes, inner, y, np.outer(a, delta), hue, size=CELL, largest=largest)
        outline_entry(axes, inner, y)
        say(axes, inner - 10, y - CELL[1] / 2 - gap, rf"$\delta_{b + 1}$", color=hue, fontsize=17, ha="right")
        say(axes, x + CELL[0] / 2, lower + 17, rf"$a_{b + 1}^{{\mathsf{{T}}}}$", color=hue, fontsize=17)
        say(
            axes,
            (inner + right) / 2,
            lower + 17,
            rf"$a_{b + 1}^{{\mathsf{{T}}}}\,\delta_{b + 1}$",
            color=hue,
            fontsize=17,
        )
        x = right + (30 if b < 2 else 34)
        say(axes, (right + x) / 2, y + n_in * CELL[1] / 2, "+" if b < 2 else "=", fontsize=18)
    right, lower = cells(axes, x, y, dW, COLOR.muted, size=CELL)
    outline_entry(axes, x, y)
    say(axes, (x + right) / 2, lower + 17, r"$dW$", fontsize=17)
    terms = [number(term[ENTRY]) for term in (np.outer(a, d) for a, d in zip(A, Delta, strict=True))]
    total = " + ".join(terms).replace("+ −", "− ")
    say(axes, WIDTH / 2, lower + 52, f"outlined:  {total}  =  {number(dW[ENTRY])}", color=COLOR.muted)


def draw() -> str:
    """The figure, as SVG."""
    params, X, T = numbers()
    _, factors = hg.value_and_factors(MODEL, LOSS)(params, X, T)
    factor = factors[2].W
    A, Delta, dW = (np.asarray(v) for v in (factor.A, factor.Delta, factor.sum()))
    figure, axes = canvas(WIDTH, 496)
    say(axes, 22, 26, "One product of two matrices …", ha="left", fontsize=15)
    product(axes, A, Delta, dW)
    say(axes, 22, 246, "… is a sum over the examples: a column times a row for each", ha="left", fontsize=15)
    summed(axes, A, Delta, dW)
    return svg(
        figure,
        "dW as a product and as a sum of outer products",
        "Above, the transpose of A times Delta is dW. Below, the same dW as the sum of three matrices, each the outer "
        "product of one example's column of A and row of Delta.",
    )


if __name__ == "__main__":
    save(__file__, draw())
