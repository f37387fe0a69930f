"""What a layer or a loss computes, and its backward pass, as equations: in Unicode and in LaTeX."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from handgrad.explain.layer_equations import LAYERS, Kind
from handgrad.explain.loss_equations import LOSSES, of_mean

SIGNS = {  # what a sign stands for, by a pattern of the sign
    "ᵀ": "⟦Aᵀ⟧ is the transpose of ⟦A⟧",
    r"\b1( .ᵀ|$)": "⟦1⟧ is a column of ones",
    r"\b1 (?P<row>[^\W\dA-Z]ᵀ)": "⟦1 ROW⟧ has ⟦ROW⟧ in every row",
    "∘": "⟦A ∘ B⟧ multiplies entry by entry",
}
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


def of_loss(kind: str, batch: int, plain: bool = True) -> tuple[Equation, Equation]:
    """The equation of a loss, and that of the prediction's cotangent; in general terms for one with options."""
    name = rf"\operatorname{{{_escaped(kind)}}}(Y, Y^{{\ast}})_b"
    general = of_mean(f"{kind}(Y, Y*)_b", name, "∂(Σ_b C_b)/∂Y", r"\sum_b \partial C_b / \partial Y")
    forward, backward = LOSSES.get(kind, general) if plain else general
    mean = ["N" if batch > 1 else "1"]
    return _chosen("C", forward, mean), _chosen("dY", backward, mean)


def signs(equations: Sequence[Equation]) -> str:
    """A sentence on the signs that the equations have; symbols are between ⟦ and ⟧."""
    text = "\n".join(equation.text for equation in equations)
    matches = ((re.search(sign, text, re.MULTILINE), said) for sign, said in SIGNS.items())
    found = [said.replace("ROW", match.groupdict().get("row", "")) for match, said in matches if match]
    return "; ".join(found) + "." if found else ""


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
