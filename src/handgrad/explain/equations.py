"""What each kind of layer and loss computes, and its backward pass, as equations: in Unicode and in LaTeX.

An equation may hold ⟦b: + 1 bᵀ⟧: that part is shown where the layer has a parameter b. In losses ⟦N:…⟧ is shown where
the batch has more than one example, over which the loss is a mean.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "kappa": "κ", "lambda": "λ", "sigma": "σ"}


class Equation(NamedTuple):
    """One line of mathematics.

    Attributes:
      of: what it gives: "Y", "dX", "dW"; "C" and "dY" for a loss.
      text: in Unicode.
      latex: in LaTeX, without delimiters.
    """

    of: str
    text: str
    latex: str


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
        r"\tfrac16\, dY \circ [-3 < X < 3]",
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

MEAN, MEAN_LATEX = "⟦N:, C = (1/N) Σ_b C_b⟧", r"⟦N:,\quad C = \tfrac 1N \sum_b C_b⟧"
OVER, OVER_LATEX = "⟦N: / N⟧", r"⟦N:\tfrac 1N\, ⟧"


def _loss(c: str, c_latex: str, dy: str, dy_latex: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Each example's loss, their mean, and the prediction's cotangent."""
    return ((f"C_b = {c}{MEAN}", f"C_b = {c_latex}{MEAN_LATEX}"), (f"dY = {dy}{OVER}", f"dY = {OVER_LATEX}{dy_latex}"))


# Y is the prediction, Y* the target, N the number of examples.
LOSSES = {
    "squared_error": _loss(
        "Σ_j (Y_bj − Y*_bj)²", r"\sum_j (Y_{bj} - Y^{\ast}_{bj})^2", "2 (Y − Y*)", r"2\, (Y - Y^{\ast})"
    ),
    "l2_loss": _loss(
        "½ Σ_j (Y_bj − Y*_bj)²", r"\tfrac 12 \sum_j (Y_{bj} - Y^{\ast}_{bj})^2", "(Y − Y*)", r"(Y - Y^{\ast})"
    ),
    "absolute_error": _loss(
        "Σ_j |Y_bj − Y*_bj|",
        r"\sum_j \lvert Y_{bj} - Y^{\ast}_{bj} \rvert",
        "sign(Y − Y*)",
        r"\operatorname{sign}(Y - Y^{\ast})",
    ),
    "huber_loss": _loss(
        "Σ_j (½ e² where |e| ≤ δ, else δ (|e| − ½ δ)), e = Y_bj − Y*_bj",
        r"\sum_j h_\delta(Y_{bj} - Y^{\ast}_{bj})",
        "clip(Y − Y*, −δ, δ)",
        r"\operatorname{clip}(Y - Y^{\ast}, -\delta, \delta)",
    ),
    "sigmoid_cross_entropy": _loss(
        "−Σ_j [Y* log σ(Y) + (1 − Y*) log(1 − σ(Y))]_bj",
        r"-\sum_j [Y^{\ast} \log \sigma(Y) + (1 - Y^{\ast}) \log(1 - \sigma(Y))]_{bj}",
        "(σ(Y) − Y*)",
        r"(\sigma(Y) - Y^{\ast})",
    ),
    "binary_cross_entropy": _loss(
        "−Σ_j [Y* log Y + (1 − Y*) log(1 − Y)]_bj",
        r"-\sum_j [Y^{\ast} \log Y + (1 - Y^{\ast}) \log(1 - Y)]_{bj}",
        "(Y − Y*) / (Y ∘ (1 − Y))",
        r"\frac{Y - Y^{\ast}}{Y \circ (1 - Y)}",
    ),
    "softmax_cross_entropy": _loss(
        "−Σ_j Q_bj log P_bj, P = softmax(Y), Q = the target, one-hot",
        r"-\sum_j Q_{bj} \log P_{bj},\quad P = \operatorname{softmax}(Y)",
        "(P − Q)",
        "(P - Q)",
    ),
    "poisson_loss": _loss(
        "Σ_j (e^Y − Y* ∘ Y)_bj", r"\sum_j (e^Y - Y^{\ast} \circ Y)_{bj}", "(e^Y − Y*)", r"(e^Y - Y^{\ast})"
    ),
    "hinge_loss": _loss(
        "Σ_j max(0, 1 − Y*_bj Y_bj)",
        r"\sum_j \max(0, 1 - Y^{\ast}_{bj} Y_{bj})",
        "−Y* ∘ [Y* ∘ Y < 1]",
        r"(-Y^{\ast} \circ [Y^{\ast} \circ Y \lt 1])",
    ),
}


def of_layer(
    kind: str, params: Sequence[str], outer: Collection[str] = (), integers: bool = False
) -> tuple[Equation, list[Equation]]:
    """The forward equation of a layer, and those of its backward pass, dX first.

    Args:
      kind: the function that makes it, "linear".
      params: names of its parameters; outer: those whose gradient is AᵀΔ.
      integers: whether its input is of integers, which have no cotangent.
    """
    known = LAYERS.get(kind)
    if known is None or (not known.params and params and kind != "residual"):
        f = rf"\operatorname{{{_escaped(kind)}}}"
        known = Kind((f"Y = {kind}(X{_listed(params)})", f"Y = {f}(X{_listed(params, latex=True)})"), None)
    dX = known.dX or ("dX = (∂Y/∂X)ᵀ dY", r"dX = \left(\frac{\partial Y}{\partial X}\right)^{\!\top} dY")
    backward = [] if integers else [_chosen("dX", dX, params)]
    backward += [
        _chosen(f"d{name}", known.params.get(name) or _gradient(name, name in outer), params) for name in params
    ]
    return _chosen("Y", known.forward, params), backward


def of_loss(kind: str, batch: int) -> tuple[Equation, Equation]:
    """The equation of a loss, and that of the prediction's cotangent."""
    name = rf"\operatorname{{{_escaped(kind)}}}(Y, Y^{{\ast}})_b"
    general = _loss(f"{kind}(Y, Y*)_b", name, "∂(Σ_b C_b)/∂Y", r"\sum_b \partial C_b / \partial Y")
    forward, backward = LOSSES.get(kind, general)
    mean = ["N"] if batch > 1 else []
    return _chosen("C", forward, mean), _chosen("dY", backward, mean)


def text_name(name: str) -> str:
    """A matrix's name in Unicode: "gamma" a letter."""
    return GREEK.get(name, name)


def latex_name(name: str) -> str:
    """A matrix's name in LaTeX: "dX" as it is, "gamma" a letter, "query.W" with its place below."""
    *places, last = name.split(".")
    if places:
        return rf"{_symbol(last)}_{{\text{{{_escaped('.'.join(places))}}}}}"
    if last[:1] == "d" and len(last) > 1 and last != "delta":
        return "d" + (" " if last[1:] in GREEK else "") + _symbol(last[1:])
    return _symbol(last)


def _symbol(name: str) -> str:
    if len(name) == 1:
        return name
    return "\\" + name if name in GREEK else rf"\mathit{{{_escaped(name)}}}"


def _escaped(name: str) -> str:
    return name.replace("_", r"\_")


def _gradient(name: str, outer: bool) -> tuple[str, str]:
    symbol, shown = latex_name(name), text_name(name)
    if outer:
        return f"d{shown} = Aᵀ Δ", rf"d{symbol} = A^\top \Delta"
    slope = rf"\left(\frac{{\partial Y}}{{\partial {symbol}}}\right)^{{\!\top}} dY"
    return f"d{shown} = (∂Y/∂{shown})ᵀ dY", f"d{symbol} = {slope}"


def _listed(params: Sequence[str], latex: bool = False) -> str:
    """ "; W, b" behind an X; of many parameters, a word."""
    if len(params) > 3:
        return r"; \text{params}" if latex else "; params"
    return "; " + ", ".join(map(latex_name if latex else text_name, params)) if params else ""


def _chosen(of: str, pair: tuple[str, str], there: Collection[str]) -> Equation:
    """The equation with the parts whose parameter is there."""
    text, latex = (re.sub(r"⟦(\w+):(.*?)⟧", lambda m: m[2] if m[1] in there else "", one) for one in pair)
    return Equation(of, text, latex)
