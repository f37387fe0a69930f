"""The explanation as one self-contained page: matrices colored by sign and size, sliders, a quiz; no network.

The template writes the first step, which is what a browser without JavaScript shows. The script (templates/*.js)
writes the numbers of other steps into the same cells, by the rules of view.py.
"""

import base64
import hashlib
import re
from importlib import resources
from typing import Any

from handgrad.explain.view import View, number
from handgrad.pages import environment

SCRIPTS = ("matrices.js", "choosing.js", "quiz.js", "controls.js")
GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "kappa": "κ", "lambda": "λ", "sigma": "σ"}
SYMBOL = re.compile(r"d?[A-Za-z][\u0300-\u036f]?")
PIECE = re.compile(r"(?<=, )|(?= = )")  # where an equation is broken rather than in a quotient
LOWERED = r"_(?:\((?P<several>[^()]*)\)|(?P<lowered>[a-z0-9]{1,2})(?![A-Za-z0-9]))"
RAISED = r"\^(?:\{(?P<group>[^}]*)\}|(?P<one>[A-Za-z0-9]))"
TOKEN = re.compile(rf"(?P<word>[A-Za-z]+[\u0300-\u036f]?)|{LOWERED}|{RAISED}|.", re.S)


def page(data: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
      data: what `handgrad explain` computed: `layers`, `loss`, one entry of `runs` for each learning rate. With
        `"quiz": True` the page opens with its results covered.

    Raises:
      ModuleNotFoundError: without the `report` extra.
    """
    pages = environment("explain", "handgrad.explain")
    from markupsafe import Markup  # which jinja2 requires

    files = resources.files("handgrad.explain") / "templates"
    script = "\n".join((files / name).read_text("utf-8") for name in SCRIPTS)
    pages.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    pages.filters["equation"] = equation
    pages.filters["number"] = number
    return pages.get_template("page.html.j2").render(
        data=data,
        view=View(data),
        style=Markup((files / "page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def equation(text: str) -> Any:
    """An equation in unicode as HTML: letters in italics, words upright, `_b` lowered and ᵀ raised."""
    from markupsafe import Markup, escape

    def token(match: re.Match[str]) -> str:
        word, lowered = match["word"], match["several"] or match["lowered"]
        raised = match["group"] or match["one"]
        if match[0] == "ᵀ" or raised:
            return f"<sup>{escape(raised or '⊤')}</sup>"
        if lowered:
            return f"<sub><i>{escape(lowered)}</i></sub>"
        if not word:
            return str(escape(match[0]))
        if word[0] == "d" and word[1:] in GREEK:
            return f"<i>d</i>{GREEK[word[1:]]}"
        return GREEK.get(word) or (f"<i>{word}</i>" if SYMBOL.fullmatch(word) else word)

    pieces = (Markup(TOKEN.sub(token, piece)) for piece in PIECE.split(text))
    return Markup("").join(
        Markup('<span class="piece">{}</span>').format(piece) if " / " in piece else piece for piece in pieces
    )
