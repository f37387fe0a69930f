"""The text fits 80 columns; Markdown and LaTeX are balanced, and TeX takes it."""

import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad.explain import as_latex, as_markdown, as_text, derivation_document, derive, network_document, questions
from handgrad.explain.document import Matrices, Named, Table, Verbatim
from handgrad.explain.equations import latex_name, of_layer, of_loss
from handgrad.explain.layer_equations import LAYERS
from handgrad.explain.loss_equations import LOSSES
from handgrad.explain.matrix import numbers, shown
from handgrad.explain.text import broken, width


def tokens():
    """Many tokens, a large table, names with dots."""
    model = hg.chain(table=hg.embedding(40, 6), skip=hg.residual(hg.linear(6)), head=hg.linear(12))
    x = jnp.arange(30).reshape(6, 5)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: np.linspace(-1, 1, leaf.size).reshape(leaf.shape), shapes)
    loss = hg.softmax_cross_entropy()
    return hg.explain.work(model, loss, params, x, x % 12, learning_rate=0.1, steps=30)


@pytest.fixture(scope="module")
def documents():
    small = questions.network("3,2", 2, "tanh", "squared_error").worked(steps=2)
    wide = questions.network("3,12", 2, "tanh", "softmax_cross_entropy").worked(steps=1)
    worked = {"tokens": tokens(), "small": small, "question": questions.question().worked(), "wide": wide}
    return {name: network_document(one) for name, one in worked.items()} | {
        "rule": derivation_document(derive("layer_norm"))
    }


NAMES = ["tokens", "small", "question", "wide", "rule"]


def balanced(latex):
    """Braces, environments, delimiters."""
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", latex):
        depth += 1 if brace == "{" else -1
        assert depth >= 0, latex
    assert depth == 0, latex
    left, right = (len(re.findall(rf"\\{side}(?![a-z])", latex)) for side in ("left", "right"))
    assert left == right
    open_ = []
    for which, name in re.findall(r"\\(begin|end)\{(\w+)\}", latex):
        if which == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name, latex
    assert not open_, latex


@pytest.mark.parametrize("name", NAMES)
def test_text_fits_eighty_columns(name, documents):
    text = as_text(documents[name])
    assert max(map(width, text.splitlines())) <= 80
    assert not re.search(r" $", text, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_markdown_and_latex_are_balanced(name, documents):
    markdown, latex = as_markdown(documents[name]), as_latex(documents[name])
    blocks = re.findall(r"^\$\$\n(.*?)\n\$\$$", markdown, re.DOTALL | re.MULTILINE)
    assert markdown.count("$$") == 2 * len(blocks) > 0
    for block in blocks:
        balanced(block)
        assert "$" not in block
        assert block.count("&") == 0 or "begin" in block
    balanced(re.sub(r"\\begin\{Verbatim\}.*?\\end\{Verbatim\}", "", latex, flags=re.DOTALL))
    assert latex.count("\\[\n") == latex.count("\n\\]")
    assert "pmatrix" in markdown


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("xelatex") is None, reason="there is no xelatex")
@pytest.mark.parametrize("name", NAMES)
def test_tex_takes_it_and_every_line_fits(documents, name, tmp_path):
    (tmp_path / "page.tex").write_text(as_latex(documents[name]))
    subprocess.run(["xelatex", "-interaction=nonstopmode", "-halt-on-error", "page"], cwd=tmp_path, check=True)
    log = (tmp_path / "page.log").read_text(errors="replace")
    assert "Missing character" not in log
    assert all(float(excess) < 5 for excess in re.findall(r"Overfull .hbox \(([\d.]+)pt", log))


def test_what_stands_in_the_text(documents):
    text = as_text(documents["small"])
    assert "b  2 × 1" in text
    assert "A = X  2 × 3" in text
    assert "Δ = dY  2 × 2" in text
    assert "⟦" not in text
    assert "$A_b$ and $\\Delta _b$" in as_latex(documents["small"])
    said = ("Forward", "Y = X W + 1 bᵀ", "dW = Aᵀ Δ", "A_2ᵀ Δ_2", "dX = dY ∘ (1 − Y ∘ Y)", "difference quotient")
    assert all(part in text for part in said)
    assert "from " in as_text(documents["tokens"])  # a summary
    assert "A_6ᵀ Δ_6" in as_text(documents["tokens"])
    assert "A_4ᵀ Δ_4" not in as_text(documents["tokens"])


def test_small_matrices_are_whole(documents):
    """2 × 12 in groups of columns, every entry of it, in each format; softmax with its probabilities and labels."""
    text, markdown = as_text(documents["wide"]), as_markdown(documents["wide"])
    assert "columns 7 to 12" in text
    assert "…" not in text
    assert "Q  2 × 12" in text
    assert r"\cdots" not in markdown
    (Y,) = re.findall(r"^P = (.*?)\n\$\$$", markdown, re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"\d\.\d+", Y)) == 24


def test_a_vector_is_a_column_and_noise_is_zero():
    shown_as = as_text([Matrices((Named("b", "b", np.array([0.5, 1e-17])),))])
    assert shown_as == "  b  2 × 1\n  ⎡ 0.5 ⎤\n  ⎣ 0.0 ⎦\n"
    assert "⋮" in as_text([Matrices((Named("b", "b", np.arange(17.0)),))])
    wide = Named("X", "X", np.full((3, 4), -0.5))
    lines = as_text([Matrices((wide, wide, wide), ("+", "="))], 40).splitlines()
    assert [k for k, line in enumerate(lines) if "+" in line or "=" in line] == [6, 10]


def test_a_formula_is_broken_before_a_sum():
    line = "dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(var + ε), G = dY ∘ 1 γᵀ"
    assert broken(line, 60) == ["dX = (G − mean(G) − X̂ ∘ mean(G ∘ X̂)) / √(var + ε),", "    G = dY ∘ 1 γᵀ"]
    assert max(map(width, broken(line, 30))) <= 30
    (verbatim, more) = as_text([Verbatim(("Δ = [dc ∘ g   dc ∘ c   dh ∘ tanh(c)]   dX = Δ Wᵀ",))], 42).splitlines()
    assert (verbatim, more) == ("  Δ = [dc ∘ g   dc ∘ c   dh ∘ tanh(c)]", "  dX = Δ Wᵀ")


def test_equations_of_every_kind_are_balanced():
    for kind, known in LAYERS.items():
        for params in (list(known.params), list(known.params)[:1], []):
            forward, backward = of_layer(kind, params, outer=params[:1])
            for equation in (forward, *backward):
                balanced(equation.latex)
                assert "⟦" not in equation.text + equation.latex
    for kind in (*LOSSES, "my_loss"):
        for equation in (*of_loss(kind, 1), *of_loss(kind, 3)):
            balanced(equation.latex)
            assert "⟦" not in equation.text + equation.latex
            assert ("N" in equation.text) == (equation in of_loss(kind, 3))


def test_an_unknown_kind_gets_a_general_equation():
    forward, backward = of_layer("my_layer", ["query.W", "gamma"], outer=["query.W"])
    assert forward.text == "Y = my_layer(X; query.W, γ)"
    assert [equation.text for equation in backward] == ["dX = (∂Y/∂X)ᵀ dY", "dquery.W = Aᵀ Δ", "dγ = (∂Y/∂γ)ᵀ dY"]
    for equation in (forward, *backward):
        balanced(equation.latex)
    assert latex_name("dX") == "dX"
    assert latex_name("query.W") == r"W_{\text{query}}"


def test_numbers_of_a_matrix():
    assert numbers(np.array([[0.5, -12.25], [3.0, 0.125]])) == [["0.500", "-12.250"], ["3.000", "0.125"]]
    assert numbers(np.array([[1.0, 1e-9]])) == [["1", "1e-09"]]
    assert numbers(np.array([[0.5, 0.0002134]])) == [["0.50000", "0.00021"]]
    assert numbers(np.array([[np.nan, 1.0]])) == [["nan", "1"]]
    assert numbers(np.array([[1, 20]])) == [["1", "20"]]


def test_shown():
    part = shown(np.arange(130.0).reshape(5, 26))
    assert (part.rows.shape, part.more_rows, part.more_columns) == ((4, 4), True, True)
    assert part.summary == (0.0, 129.0, 64.5)
    assert shown(np.ones((2, 3, 4))).rows.shape == (6, 4)
    assert shown(np.array(3.0)).rows.shape == (1, 1)
    empty = Matrices((Named("X", "X", np.zeros((0, 3))),))
    assert as_text([empty]).split() == ["X", "0", "×", "3", "[", "]"]
    assert as_text([Table(("a" * 90, "b"), (("c", "d"),))]).splitlines()[0].strip().startswith("aaa")
