"""The question's single weight: where it goes at four learning rates, and the law that says so.

python docs/figures/convergence_law.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from _style import COLOR, save, svg
from matplotlib.figure import Figure

import handgrad as hg

jax.config.update("jax_enable_x64", True)
MODEL, LOSS = hg.linear(1, bias=False), hg.squared_error()
W0, A, Y = -23.1, 5.7, 50.1  # the question's weight, input and target
EDGE = 1 / A**2
RATES = [  # (r as a multiple of 1 / a², or the question's; name, color, marker)
    (0.007, "the question's r", COLOR.blue, "o"),
    (EDGE / 2, "one step", COLOR.green, "D"),
    (0.9 * EDGE, "overshoots, converges", COLOR.purple, "s"),
    (1.1 * EDGE, "diverges", COLOR.red, "^"),
]
STEPS = 12


@jax.jit
def path(rate: jax.Array) -> jax.Array:
    """w before each of the steps, by hand-written gradients."""
    a, y = jnp.full((1, 1), A), jnp.full((1, 1), Y)

    def step(params, _):
        dw = hg.grad(MODEL, LOSS)(params, a, y)
        return jax.tree.map(lambda w, d: w - rate * d, params, dw), params.W[0, 0]

    return jax.lax.scan(step, hg.LinearParams(jnp.full((1, 1), W0)), length=STEPS + 1)[1]


def draw() -> str:
    """The figure, as SVG."""
    figure = Figure(figsize=(700 / 72, 330 / 72))
    left, right = figure.add_axes((0.075, 0.15, 0.42, 0.72)), figure.add_axes((0.585, 0.15, 0.39, 0.72))
    best = Y / A
    left.axhline(best, color=COLOR.muted, linewidth=1.2, linestyle=(0, (4, 3)))
    left.text(STEPS + 0.5, best, r"$w^{\ast}$", color=COLOR.muted, fontsize=15, va="center")
    rates = np.linspace(0, 1.2 * EDGE, 121)
    right.plot(rates, np.abs(1 - 2 * rates * A**2), color=COLOR.muted, linewidth=2)
    right.axhspan(1, 1.5, facecolor=COLOR.red, alpha=0.1, linewidth=0)
    right.axhline(1, color=COLOR.red, linewidth=1, linestyle=(0, (4, 3)))
    for rate, name, color, marker in RATES:
        w = np.asarray(path(jnp.float64(rate)))
        shown = w[: np.argmax(np.abs(w - best) > 70) or None]  # a path that leaves the picture ends there
        left.plot(shown, color=color, marker=marker, markersize=4.5, linewidth=1.6)
        measured = abs((w[1] - best) / (w[0] - best))
        right.plot([rate], [measured], marker=marker, color=color, markersize=9)
        side = "right" if rate > 0.8 * EDGE else "left"
        right.text(
            rate + (0.0012 if side == "left" else -0.0012),
            measured,
            name,
            color=color,
            ha=side,
            fontsize=12,
            va="center",
        )
    left.set(xlabel="step k", xlim=(-0.3, STEPS + 0.3), ylim=(-45, 65))
    left.set_title("the weight", loc="left", fontsize=13)
    right.set(xlabel="learning rate r", xlim=(0, 1.2 * EDGE), ylim=(-0.03, 1.4))
    right.set_title(r"what a step leaves of the error, $|1 - 2\,r\,a^2|$", loc="left", fontsize=13)
    right.set_xticks([0, EDGE / 2, EDGE], ["0", r"$1 / 2a^2$", r"$1 / a^2$"])
    for axes in (left, right):
        axes.grid(visible=True, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=11.5)
    return svg(
        figure,
        "The convergence law of one weight",
        "Left, the weight over the steps at four learning rates: a smooth approach, arrival in one step, an approach "
        "that overshoots, and growing leaps. Right, the factor by which a step shrinks the error over the learning "
        "rate, a V with its tip at one over two a squared, and the four rates on it, as measured.",
    )


if __name__ == "__main__":
    save(__file__, draw())
