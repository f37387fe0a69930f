"""The equations of each kind of layer: (text, LaTeX) of Y, of dX, and of each parameter's gradient.

An equation may hold ⟦b: + 1 bᵀ⟧: that part is shown where the layer has a parameter b.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """The equations of a layer.

    Attributes:
      forward: (text, latex) of Y.
      dX: (text, latex) of the input's cotangent; None where the input is of integers.
      params: (text, latex) of each parameter's gradient, by the parameter's name.
    """

    forward: tuple[str, str]
    dX: tuple[str, str] | None
    params: dict[str, tuple[str, str]] = {}  # noqa: RUF012


SUM_OF_ROWS = {"b": ("db = Δᵀ 1", r"db = \Delta^\top \mathbf 1")}
NORM_PARAMS = {
    "gamma": ("dγ = (X̂ ∘ dY)ᵀ 1", r"d\gamma = (\hat X \circ dY)^\top \mathbf 1"),
    "beta": ("dβ = dYᵀ 1", r"d\beta = dY^\top \mathbf 1"),
}
SCALED = "⟦gamma: ∘ 1 γᵀ⟧⟦beta: + 1 βᵀ⟧"
SCALED_LATEX = r"⟦gamma: \circ \mathbf 1 \gamma^\top⟧⟦beta: + \mathbf 1 \beta^\top⟧"
G, G_LATEX = "G = dY⟦gamma: ∘ 1 γᵀ⟧", r"G = dY⟦gamma: \circ \mathbf 1 \gamma^\top⟧"


def _centered(over: str) -> Kind:
    """A norm that subtracts a mean and divides by a standard deviation: layer, batch, group and instance norm."""
    return Kind(
        (
            f"Y = X̂{SCALED}, X̂ = (X − mean) / √(var + ε), both {over}",
            rf"\hat X = \frac{{X - \operatorname{{mean}}}}{{\sqrt{{\operatorname{{var}} + \varepsilon}}}},"
            rf"\quad Y = \hat X{SCALED_LATEX}",
        ),
        (
            f"dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(var + ε), {G}",
            r"dX = \frac{G - \operatorname{mean}(G) - \hat X \circ \operatorname{mean}(G \circ \hat X)}"
            rf"{{\sqrt{{\operatorname{{var}} + \varepsilon}}}},\quad {G_LATEX}",
        ),
        NORM_PARAMS,
    )


def _elementwise(y: str, y_latex: str, dx: str, dx_latex: str) -> Kind:
    """An activation."""
    return Kind((f"Y = {y}", f"Y = {y_latex}"), (f"dX = {dx}", f"dX = {dx_latex}"))


def _cases(positive: str, negative: str, where: str = "X > 0") -> str:
    return rf"\begin{{cases}} {positive} & {where} \\ {negative} & \text{{elsewhere}} \end{{cases}}"


LAYERS = {
    "linear": Kind(
        ("Y = X W⟦b: + 1 bᵀ⟧", r"Y = X W⟦b: + \mathbf 1 b^\top⟧"),
        ("dX = Δ Wᵀ", r"dX = \Delta W^\top"),
        {"W": ("dW = Aᵀ Δ", r"dW = A^\top \Delta"), **SUM_OF_ROWS},
    ),
    "identity": _elementwise("X", "X", "dY", "dY"),
    "tanh": _elementwise("tanh(X)", r"\tanh(X)", "dY ∘ (1 − Y ∘ Y)", r"dY \circ (1 - Y \circ Y)"),
    "sigmoid": _elementwise(
        "σ(X) = 1 / (1 + e⁻ˣ)", r"\sigma(X) = \frac{1}{1 + e^{-X}}", "dY ∘ Y ∘ (1 − Y)", r"dY \circ Y \circ (1 - Y)"
    ),
    "softplus": _elementwise("log(1 + eˣ)", r"\log(1 + e^X)", "dY ∘ σ(X)", r"dY \circ \sigma(X)"),
    "relu": _elementwise("max(X, 0)", r"\max(X, 0)", "dY ∘ [Y > 0]", r"dY \circ [Y > 0]"),
    "squared_relu": _elementwise("max(X, 0)²", r"\max(X, 0)^2", "2 dY ∘ max(X, 0)", r"2\, dY \circ \max(X, 0)"),
    "leaky_relu": _elementwise(
        "X where X ≥ 0, s X elsewhere",
        _cases("X", "s X", r"X \ge 0"),
        "dY where X ≥ 0, s dY elsewhere",
        _cases("dY", r"s\, dY", r"X \ge 0"),
    ),
    "elu": _elementwise(
        "X where X > 0, α (eˣ − 1) elsewhere",
        _cases("X", r"\alpha (e^X - 1)"),
        "dY where X > 0, α dY ∘ eˣ elsewhere",
        _cases("dY", r"\alpha\, dY \circ e^X"),
    ),
    "selu": _elementwise(
        "λ X where X > 0, λ α (eˣ − 1) elsewhere",
        _cases(r"\lambda X", r"\lambda \alpha (e^X - 1)"),
        "λ dY where X > 0, λ α dY ∘ eˣ elsewhere",
        _cases(r"\lambda\, dY", r"\lambda \alpha\, dY \circ e^X"),
    ),
    "silu": _elementwise(
        "X ∘ S, S = σ(X)",
        r"X \circ S,\quad S = \sigma(X)",
        "dY ∘ S ∘ (1 + X ∘ (1 − S))",
        r"dY \circ S \circ (1 + X \circ (1 - S))",
    ),
    "gelu": _elementwise(
        "X ∘ Φ(X)", r"X \circ \Phi(X)", "dY ∘ (Φ(X) + X ∘ φ(X))", r"dY \circ (\Phi(X) + X \circ \varphi(X))"
    ),
    "mish": _elementwise(
        "X ∘ T, T = tanh(log(1 + eˣ))",
        r"X \circ T,\quad T = \tanh(\log(1 + e^X))",
        "dY ∘ (T + X ∘ T′)",
        r"dY \circ (T + X \circ T')",
    ),
    "hard_sigmoid": _elementwise(
        "(X + 3) / 6, clipped to 0 … 1",
        r"\operatorname{clip}\left(\tfrac{X + 3}{6}, 0, 1\right)",
        "dY ∘ [−3 < X < 3] / 6",
        r"\tfrac16\, dY \circ [-3 \lt X \lt 3]",
    ),
    "hard_swish": _elementwise(
        "X ∘ H, H = (X + 3) / 6 clipped to 0 … 1",
        r"X \circ H,\quad H = \operatorname{clip}\left(\tfrac{X + 3}{6}, 0, 1\right)",
        "dY ∘ (H + X ∘ H′)",
        r"dY \circ (H + X \circ H')",
    ),
    "softmax": _elementwise(
        "eˣ / Σ eˣ along each row",
        r"\operatorname{softmax}(X)",
        "Y ∘ (dY − ((Y ∘ dY) 1) 1ᵀ)",
        r"Y \circ \left(dY - ((Y \circ dY)\, \mathbf 1)\, \mathbf 1^\top\right)",
    ),
    "log_softmax": _elementwise(
        "X − log Σ eˣ along each row",
        r"\log \operatorname{softmax}(X)",
        "dY − P ∘ ((dY 1) 1ᵀ), P = softmax(X)",
        r"dY - P \circ ((dY\, \mathbf 1)\, \mathbf 1^\top),\quad P = \operatorname{softmax}(X)",
    ),
    "flatten": Kind(
        ("Y = X, each example as one row", r"Y = X \text{, each example as one row}"),
        ("dX = dY, in X's shape", r"dX = dY \text{, in the shape of } X"),
    ),
    "layer_norm": _centered("along each row"),
    "instance_norm": _centered("over each example's tokens"),
    "group_norm": _centered("over each group"),
    "batch_norm": _centered("over all rows"),
    "rms_norm": Kind(
        (
            f"Y = X̂{SCALED}, X̂ = X / √(mean(X ∘ X) + ε)",
            r"\hat X = \frac{X}{\sqrt{\operatorname{mean}(X \circ X) + \varepsilon}},"
            rf"\quad Y = \hat X{SCALED_LATEX}",
        ),
        (
            f"dX = (G − X̂ ∘ mean(G ∘ X̂)) / √(mean(X ∘ X) + ε), {G}",
            r"dX = \frac{G - \hat X \circ \operatorname{mean}(G \circ \hat X)}"
            rf"{{\sqrt{{\operatorname{{mean}}(X \circ X) + \varepsilon}}}},\quad {G_LATEX}",
        ),
        NORM_PARAMS,
    ),
    "embedding": Kind(
        ("y_t = row x_t of the table", r"y_t = e_{x_t}^\top\, \mathit{table}"),
        None,
        {"table": ("dtable = Σ_t e_t dy_tᵀ", r"d\mathit{table} = \sum_t e_{x_t}\, dy_t^\top")},
    ),
    "position_embedding": Kind(
        ("y_t = x_t + row t of the table", r"y_t = x_t + e_t^\top\, \mathit{table}"),
        ("dX = dY", "dX = dY"),
        {"table": ("dtable = Σ_t e_t dy_tᵀ", r"d\mathit{table} = \sum_t e_t\, dy_t^\top")},
    ),
    "convolution": Kind(
        ("y_i = Σ_t x_(s i + t − p) K_t⟦b: + b⟧", r"y_i = \sum_t x_{s i + t - p} K_t⟦b: + b⟧"),
        ("dx_j = Σ_(s i + t = j + p) dy_i K_tᵀ", r"dx_j = \sum_{s i + t = j + p} dy_i K_t^\top"),
        {
            "K": ("dK_t = Σ_i x_(s i + t − p)ᵀ dy_i", r"dK_t = \sum_i x_{s i + t - p}^\top dy_i"),
            "b": ("db = dYᵀ 1", r"db = dY^\top \mathbf 1"),
        },
    ),
    "max_pool": Kind(
        ("y_i = the largest x of window i", r"y_i = \max_t x_{s i + t}"),
        ("dx_j = Σ dy_i over the windows whose maximum is x_j", r"dx_j = \sum_{i:\, y_i = x_j} dy_i"),
    ),
    "average_pool": Kind(
        ("y_i = the mean of window i", r"y_i = \frac 1c \sum_t x_{s i + t}"),
        ("dx_j = Σ dy_i / c over the windows that see x_j", r"dx_j = \frac 1c \sum_{i \text{ sees } j} dy_i"),
    ),
    "global_average_pool": Kind(
        ("y = the mean of x over space", r"y = \frac 1n \sum_j x_j"), ("dx_j = dy / n", r"dx_j = \frac 1n dy")
    ),
    "residual": Kind(
        ("Y = X + f(X)", "Y = X + f(X)"),
        ("dX = dY + (∂f/∂X)ᵀ dY", r"dX = dY + \left(\frac{\partial f}{\partial X}\right)^{\!\top} dY"),
        {},
    ),
    "lora_linear": Kind(
        ("Y = X W + s (X A) B⟦b: + 1 bᵀ⟧", r"Y = X W + s\, (X A) B⟦b: + \mathbf 1 b^\top⟧"),
        ("dX = dY Wᵀ + dH Aᵀ, dH = s dY Bᵀ", r"dX = dY\, W^\top + dH A^\top,\quad dH = s\, dY B^\top"),
        {
            "W": ("dW = Xᵀ dY", r"dW = X^\top dY"),
            "A": ("dA = Xᵀ dH", r"dA = X^\top dH"),
            "B": ("dB = s (X A)ᵀ dY", r"dB = s\, (X A)^\top dY"),
            "b": ("db = dYᵀ 1", r"db = dY^\top \mathbf 1"),
        },
    ),
}
