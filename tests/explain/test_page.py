import json
import sys
from html.parser import HTMLParser

import page_data
import pytest

from handgrad.explain.page import equation, page
from handgrad.explain.view import View, number, numbers, tint

VOID = ("meta", "input", "wbr", "br")


class Figures(HTMLParser):
    """The matrices of a page: (path, example, rows of texts); the page's data; every tag's attributes."""

    def __init__(self, html):
        super().__init__()
        self.figures, self.tags, self.open, self.data, self.cell = [], [], [], "", None
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append((tag, attributes))
        if tag == "figure":
            self.figures.append((json.loads(attributes["data-path"]), attributes.get("data-example"), []))
        elif tag == "tr":
            self.figures[-1][2].append([])
        elif tag == "td":
            self.figures[-1][2][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "td":
            self.figures[-1][2][-1][-1] += data
        elif tag == "script" and attributes.get("id") == "data":
            self.data += data


def rows_at(step, path):
    for key in path:
        step = step[key]
    if isinstance(step, list):
        return [[entry] for entry in step]
    return step["data"] if "data" in step else step["summary"]["corner"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5.7, "5.7"),
        (-363.54, "−363.5"),
        (1.0625, "1.063"),
        (-1.0625, "−1.063"),
        (0.00012346, "0.0001235"),
        (9.99996e-5, "0.0001"),
        (1.2346e-7, "1.235e−7"),
        (-1234567, "−1.235e6"),
        (1e30, "1e30"),
        (-0.0, "0"),
        ("nan", "NaN"),
        ("-inf", "−∞"),
        (float("inf"), "∞"),
    ],
)
def test_numbers_have_four_significant_digits(value, text):
    assert number(value) == text


def test_entries_of_a_matrix_have_as_many_decimals():
    assert numbers([[0.5, -1.25], [0.0, 1e-17]]) == [["0.50", "−1.25"], ["0.00", "0.00"]]
    assert numbers([[0.09, -1.0625], [-0.00012, 3]]) == [["0.09000", "−1.06250"], ["−0.00012", "3.00000"]]
    assert numbers([[2.00005, 1]]) == [["2", "1"]]
    assert numbers([[1, 1e-9]]) == [["1", "1e−9"]]
    assert numbers([["nan", 0.5]]) == [["NaN", "0.5"]]


def test_an_equation_is_html():
    assert equation("dW = Xᵀ Δ") == "<i>dW</i> = <i>X</i><sup>⊤</sup> Δ"
    assert equation("C_b = max(0, Y)") == "<i>C</i><sub><i>b</i></sub> = max(0, <i>Y</i>)"
    assert equation("dtable = Σ_t e_t dy_tᵀ").endswith(" <i>dy</i><sub><i>t</i></sub><sup>⊤</sup>")
    assert equation("dgamma = sq_norms") == "<i>d</i>γ = sq_norms"
    assert equation("Σ_j (e^Y)_bj").startswith("Σ<sub><i>j</i></sub> (<i>e</i><sup>Y</sup>)<sub><i>bj</i></sub>")
    assert equation("x_(s i + t)ᵀ") == "<i>x</i><sub><i>s i + t</i></sub><sup>⊤</sup>"
    assert equation("[Y > 0] <b>") == "[<i>Y</i> &gt; 0] &lt;<i>b</i>&gt;"


def test_tint_is_a_sign_and_a_size():
    assert [tint(entry, 4.0) for entry in (4.0, -4.0, 0.0, 1.0, "nan", "inf")] == [100, -100, 0, 55, 0, 0]
    assert tint(1e-300, 1.0) == 10  # a small entry still shows its sign


@pytest.mark.parametrize("bias", [True, False])
def test_the_page_holds_every_matrix_of_the_first_step(bias):
    data = page_data.network(steps=3, rate=1, bias=bias)
    parsed = Figures(page(data))
    assert json.loads(parsed.data) == data
    shown = {}
    for path, example, rows in parsed.figures:
        shown.setdefault(tuple(path), []).append(example)
        if example is None:
            entries = rows_at(data["runs"][1]["steps"][0], path)
            assert rows == numbers(entries), path
    for i, layer in enumerate(data["layers"]):
        names = {"X", "Y", "dX", "dY"}
        assert {path[2] for path in shown if path[:2] == ("layers", i) and len(path) == 3} == names
        for name in layer["params"]:
            assert ("layers", i, "params", name) in shown
            assert ("layers", i, "updated", name) in shown
            grad = ("layers", i, "grads", name)
            examples = ["0", "1", "2"] if name == "W" else []
            assert shown[(*grad, "value")] == [None, *examples]
            assert ((*grad, "A") in shown) == (name == "W")
            assert (*grad, "Delta") in shown


def test_outer_products_add_up_to_the_gradient():
    data = page_data.network(batch=2)
    path = ("layers", 0, "grads", "W", "value")
    first, second = View(data)._products(data["runs"][0]["steps"][0], path)
    for i, row in enumerate(rows_at(data["runs"][0]["steps"][0], path)):
        assert [first[i][j] + second[i][j] for j in range(4)] == pytest.approx(row, rel=1e-13)


def test_of_many_examples_a_few_outer_products_are_shown():
    data = page_data.network((2, 2), batch=20)
    path = ("layers", 0, "grads", "W", "value")
    assert View(data).examples(path) == [0, 1, 2, None, 19]
    assert [example for at, example, _ in Figures(page(data)).figures if at == list(path)] == [
        None,
        "0",
        "1",
        "2",
        "19",
    ]


def test_large_matrices_are_summarized():
    data = page_data.network((40, 30, 10), batch=16, steps=2)
    html = page(data)
    weight = data["runs"][0]["steps"][0]["layers"][0]["params"]["W"]["summary"]
    assert f"from {number(weight['min'])} to {number(weight['max'])}, mean {number(weight['mean'])}" in html
    assert "40 × 30" in html
    shown = [rows for path, _, rows in Figures(html).figures if path == ["layers", 0, "params", "W"]]
    assert [len(row) for row in shown[0]] == [4, 4, 4, 4, 0]  # the last row has only dots


def test_a_run_that_overflows_is_shown():
    data = page_data.question(steps=300, rates=(3.0,))
    data["runs"][0]["steps"] = data["runs"][0]["steps"][-1:]
    step = data["runs"][0]["steps"][0]
    assert "nan" in (step["loss"], *step["losses"])
    assert "<td>NaN</td>" in page(data)


def test_names_are_escaped():
    data = page_data.question(steps=1)
    bad = "</script><script>alert('1')</script><b>&"
    data["title"] = data["intro"] = data["layers"][0]["name"] = data["layers"][0]["kind"] = bad
    data["layers"][0]["forward"]["text"] = data["loss"]["kind"] = bad
    html = page(data)
    assert "alert('1')" not in html
    assert html.count("<script") == 2
    assert json.loads(Figures(html).data)["title"] == bad


def test_the_page_needs_nothing_else():
    html = page(page_data.chain())
    parsed = Figures(html)
    assert not [tag for tag, attributes in parsed.tags if tag in ("link", "img", "iframe") or "src" in attributes]
    assert all(attributes["href"].startswith("#") for tag, attributes in parsed.tags if tag == "a")
    assert "url(" not in html
    assert "@import" not in html


def test_without_jinja2_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"explain: a page needs jinja2.*pip install .*\[report\]"):
        page(page_data.question(steps=1))
