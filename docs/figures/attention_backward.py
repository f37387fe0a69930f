"""Attention, forward and backward, as products of matrices: causal, one head, every entry of one color by its sign.

python docs/figures/attention_backward.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from _style import COLOR, canvas, cells, save, say, svg

from handgrad.rules.attention.attention import attention_backward, attention_forward

jax.config.update("jax_enable_x64", True)
WIDTH, CELL, TOKENS, N = 700, (14, 14), 6, 4


def numbers() -> dict[str, np.ndarray]:
    """Every matrix of the two passes, (tokens, n) or (tokens, tokens)."""
    rng = np.random.default_rng(4)
    Q, K, V, dY = (jnp.asarray(rng.standard_normal((1, TOKENS, 1, N))) for _ in range(4))
    Y, residuals = attention_forward(Q, K, V, causal=True)
    dQ, dK, dV, *_ = attention_backward(residuals, dY, causal=True)
    arrays = {"Q": Q, "K": K, "V": V, "Y": Y, "dY": dY, "dQ": dQ, "dK": dK, "dV": dV}
    M = {name: np.asarray(array)[0, :, 0] for name, array in arrays.items()}
    M["P"] = np.asarray(residuals.P).reshape(TOKENS, TOKENS)
    M["dP"] = M["dY"] @ M["V"].T
    M["D"] = (M["P"] * M["dP"]).sum(1, keepdims=True)
    M["dS"] = M["P"] * (M["dP"] - M["D"])
    if not np.allclose(M["dS"] @ M["K"] / np.sqrt(N), M["dQ"]):
        raise ValueError("attention_backward's dQ isn't what the figure draws")
    return M


def row(axes, x: float, y: float, parts: list[tuple[str, np.ndarray | int]]) -> float:
    """Matrices with their names above, and signs between them, around the line y; returns the right edge."""
    for part in parts:
        name, matrix = part
        if isinstance(matrix, int):  # a sign, and how wide it is
            say(axes, x + matrix / 2, y, name, fontsize=16)
            x += matrix
            continue
        hues = np.where(matrix < 0, COLOR.orange, COLOR.blue)
        top = y - len(matrix) * CELL[1] / 2
        right, _ = cells(axes, x, top, matrix, hues, size=CELL, digits=None)
        say(axes, (x + right) / 2, top - 13, f"${name}$", fontsize=15.5)
        x = right
    return x


def draw() -> str:
    """The figure, as SVG."""
    M = numbers()
    T = r"^{\mathsf{T}}"
    times, equals = (r"$\cdot$", 20), ("=", 34)
    figure, axes = canvas(WIDTH, 590)
    left, second = 30, 376

    say(axes, 22, 26, "forward", ha="left", color=COLOR.blue, fontsize=16)
    y = 106
    scores = [("softmax$(s$", 92), ("Q", M["Q"]), times, ("K" + T, M["K"].T), (")", 18)]
    row(axes, left, y, [("P", M["P"]), equals, *scores])
    row(axes, 444, y, [("Y", M["Y"]), equals, ("P", M["P"]), times, ("V", M["V"])])
    note = r"$s = 1/\sqrt{n}$; a query sees no later key: $P$ is zero above its diagonal"
    say(axes, left, y + 62, note, fontsize=12, color=COLOR.muted, ha="left")

    say(axes, 22, 206, "backward", ha="left", color=COLOR.orange, fontsize=16)
    y = 284
    row(axes, left, y, [("dV", M["dV"]), equals, ("P" + T, M["P"].T), times, ("dY", M["dY"])])
    row(axes, second, y, [("dP", M["dP"]), equals, ("dY", M["dY"]), times, ("V" + T, M["V"].T)])
    y = 408
    less_mean = [(r"$\circ\ ($", 34), ("dP", M["dP"]), ("−", 28), ("D", M["D"]), (r"$\mathbf{1}^{\mathsf{T}})$", 36)]
    right = row(axes, left, y, [("dS", M["dS"]), equals, ("P", M["P"]), *less_mean])
    say(axes, right + 26, y - 10, r"$D = (P \circ dP)\,\mathbf{1}$", ha="left", fontsize=15)
    say(axes, right + 26, y + 14, "one number for each query", ha="left", fontsize=12, color=COLOR.muted)
    y = 530
    scaled = (r"$= s$", 44)
    row(axes, left, y, [("dQ", M["dQ"]), scaled, ("dS", M["dS"]), times, ("K", M["K"])])
    row(axes, second, y, [("dK", M["dK"]), scaled, ("dS" + T, M["dS"].T), times, ("Q", M["Q"])])
    return svg(
        figure,
        "Attention's backward pass in matrices",
        "Forward, P is the softmax of Q times K transposed, and Y is P times V. Backward, dV is P transposed times dY, "
        "dP is dY times V transposed, dS is P times the difference of dP and D, dQ is dS times K, and dK is dS "
        "transposed times Q. Blue is positive, orange negative.",
    )


if __name__ == "__main__":
    save(__file__, draw())
