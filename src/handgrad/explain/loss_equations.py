"""The equations of each kind of loss: (text, LaTeX) of an example's loss, and of the prediction's cotangent.

Y is the prediction, Y* the target, N the number of examples. ⟦N:…⟧ is shown where there are several, over which the
loss is a mean, and ⟦1:…⟧ where there is one.
"""

from itertools import accumulate

MEAN, MEAN_LATEX = "⟦N:, C = (1/N) Σ_b C_b⟧", r"⟦N:,\quad C = \tfrac 1N \sum_b C_b⟧"
OVER, OVER_LATEX = "⟦N: / N⟧", r"⟦N:\tfrac 1N\, ⟧"


def of_mean(c: str, c_latex: str, dy: str, dy_latex: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Each example's loss, their mean, and the prediction's cotangent."""
    over = "" if "⟦" in dy_latex else OVER_LATEX  # which it says by itself
    dy, dy_latex = _in_brackets(dy), _in_brackets(dy_latex)
    return (f"C_b = {c}{MEAN}", f"C_b = {c_latex}{MEAN_LATEX}"), (f"dY = {dy}{OVER}", f"dY = {over}{dy_latex}")


def _in_brackets(difference: str) -> str:
    """A difference in brackets, which are needed where it is divided by N."""
    depths = list(accumulate((letter == "(") - (letter == ")") for letter in difference))
    return f"⟦N:(⟧{difference[1:-1]}⟦N:)⟧" if min(depths[:-1]) > 0 else difference


LOSSES = {
    "squared_error": of_mean(
        "Σ_j (Y_bj − Y*_bj)²",
        r"\sum_j (Y_{bj} - Y^{\ast}_{bj})^2",
        "2 (Y − Y*)",
        r"⟦N:\tfrac 2N⟧⟦1:2⟧\, (Y - Y^{\ast})",
    ),
    "l2_loss": of_mean(
        "½ Σ_j (Y_bj − Y*_bj)²", r"\tfrac 12 \sum_j (Y_{bj} - Y^{\ast}_{bj})^2", "(Y − Y*)", r"(Y - Y^{\ast})"
    ),
    "absolute_error": of_mean(
        "Σ_j |Y_bj − Y*_bj|",
        r"\sum_j \lvert Y_{bj} - Y^{\ast}_{bj} \rvert",
        "sign(Y − Y*)",
        r"\operatorname{sign}(Y - Y^{\ast})",
    ),
    "huber_loss": of_mean(
        "Σ_j (½ e² where |e| ≤ δ, else δ (|e| − ½ δ)), e = Y_bj − Y*_bj",
        r"\sum_j h_\delta(Y_{bj} - Y^{\ast}_{bj})",
        "clip(Y − Y*, −δ, δ)",
        r"\operatorname{clip}(Y - Y^{\ast}, -\delta, \delta)",
    ),
    "sigmoid_cross_entropy": of_mean(
        "−Σ_j [Y* log σ(Y) + (1 − Y*) log(1 − σ(Y))]_bj",
        r"-\sum_j [Y^{\ast} \log \sigma(Y) + (1 - Y^{\ast}) \log(1 - \sigma(Y))]_{bj}",
        "(σ(Y) − Y*)",
        r"(\sigma(Y) - Y^{\ast})",
    ),
    "binary_cross_entropy": of_mean(
        "−Σ_j [Y* log Y + (1 − Y*) log(1 − Y)]_bj",
        r"-\sum_j [Y^{\ast} \log Y + (1 - Y^{\ast}) \log(1 - Y)]_{bj}",
        "(Y − Y*) / (Y ∘ (1 − Y))",
        r"\frac{Y - Y^{\ast}}{Y \circ (1 - Y)}",
    ),
    "softmax_cross_entropy": of_mean(
        "−Σ_j Q_bj log P_bj, P = softmax(Y)",
        r"-\sum_j Q_{bj} \log P_{bj},\quad P = \operatorname{softmax}(Y)",
        "(P − Q)",
        "(P - Q)",
    ),
    "poisson_loss": of_mean(
        "Σ_j (e^Y − Y* ∘ Y)_bj", r"\sum_j (e^Y - Y^{\ast} \circ Y)_{bj}", "(e^Y − Y*)", r"(e^Y - Y^{\ast})"
    ),
    "hinge_loss": of_mean(
        "Σ_j max(0, 1 − Y*_bj Y_bj)",
        r"\sum_j \max(0, 1 - Y^{\ast}_{bj} Y_{bj})",
        "−Y* ∘ [Y* ∘ Y < 1]",
        r"(-Y^{\ast} \circ [Y^{\ast} \circ Y \lt 1])",
    ),
}
