"""The page as its readers use it: pointer, touch, keys, sliders, the quiz."""

import shutil

import pytest

from handgrad.explain import questions, to_json
from handgrad.explain.page import page as write
from handgrad.explain.view import number, numbers

playwright = pytest.importorskip("playwright.sync_api", reason="without the extra browser, no page is opened")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here"),
    pytest.mark.xdist_group("chromium"),
]
NAMES = ("question", "chain", "network", "quiz", "large")
FIGURES = """() => [...document.querySelectorAll('figure.matrix')].map((figure) => ({
  path: JSON.parse(figure.dataset.path), example: figure.dataset.example ?? null,
  rows: [...figure.querySelectorAll('tr')].map((tr) => [...tr.querySelectorAll('td')].map((td) => td.textContent)),
  colors: [...figure.querySelectorAll('td')].map((td) => [td.className, td.style.getPropertyValue('--size')]),
}))"""
LIT = "figures => figures.flatMap((figure) => [...figure.querySelectorAll('td.lit')].map((td) => td.textContent))"


@pytest.fixture(scope="module")
def pages():
    """What the command computes for five pages, by name."""
    network = questions.network("3,4,2", 3, "tanh", "squared_error")
    worked = {
        "question": questions.question().worked(several=True),
        "chain": questions.chain().worked(several=True),
        "network": network.worked(steps=6, several=True),
        "large": questions.network("40,30,10", 16, "tanh", "squared_error").worked(steps=3),
    }
    data = {name: to_json(one) for name, one in worked.items()}
    return {**data, "quiz": {**data["network"], "quiz": True}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pages):
    """A folder of the pages."""
    folder = tmp_path_factory.mktemp("pages")
    for name, data in pages.items():
        (folder / f"{name}.html").write_text(write(data), "utf-8")
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, folder):
    """Opens a page; at the end, nothing may have been written to the console or requested but the file."""
    said, contexts = [], []

    def visit(name, width=1280, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
        context.set_default_timeout(120_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        page.goto((folder / f"{name}.html").as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []


def chosen(data):
    return data["runs"][data["rate"]]


def expected(step, path):
    for key in path:
        step = step[key]
    rows = [[entry] for entry in step] if isinstance(step, list) else step.get("data") or step["summary"]["corner"]
    return numbers(rows)


def check_numbers(page, step):
    for figure in page.evaluate(FIGURES):
        if figure["example"] is None:
            whole = expected(step, figure["path"])
            shown = whole[:8] if figure["path"] == ["losses"] else whole
            assert [row for row in figure["rows"] if row] == shown, figure["path"]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_and_reads_well(visit, name):
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="without the extra browser").Axe
    page = visit(name)
    page.locator("figure[data-lights] td").first.hover()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            rules = {} if (width, scheme) == (1280, "light") else {"runOnly": ["color-contrast"]}
            found = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == [], (width, scheme)


def test_the_script_writes_what_the_template_wrote(visit):
    with_script, without = visit("network"), visit("network", java_script_enabled=False)
    assert without.locator("noscript").is_visible()
    assert without.locator(".controls").is_hidden()
    assert without.locator("#layer-0 figure").first.is_visible()
    # A page without scripts can't be asked, but its source can be loaded into one that runs them, the script left out.
    blank = visit("network")
    blank.evaluate(
        "html => { document.body.innerHTML = new DOMParser().parseFromString(html, 'text/html').body.innerHTML }",
        without.content(),
    )
    assert blank.evaluate(FIGURES) == with_script.evaluate(FIGURES)


def test_lit_entries_multiply_to_the_shown_value(visit, pages):
    page = visit("network")
    for at in (0, 2):
        gradient = chosen(pages["network"])["steps"][0]["layers"][at]["grads"]["W"]
        value, A, Delta = (gradient[name]["data"] for name in ("value", "A", "Delta"))
        block = page.locator(f"#layer-{at} .gradient").first
        for i, row in enumerate(value):
            for j, entry in enumerate(row):
                block.locator("figure[data-lights] tr").nth(i).locator("td").nth(j).hover()
                left = block.locator("[data-side=A]").evaluate_all(LIT)
                right = block.locator("[data-side=Delta]").evaluate_all(LIT)
                assert left == [row[i] for row in numbers(A)]
                assert right == [row[j] for row in numbers(Delta)]
                assert sum(a[i] * d[j] for a, d in zip(A, Delta, strict=True)) == pytest.approx(entry, rel=1e-12)
                assert block.locator("figure[data-lights] td.lit").all_text_contents() == [numbers(value)[i][j]]
                pairs = [[f"({x})" if x[0] == "−" else x for x in pair] for pair in zip(left, right, strict=True)]
                total = " + ".join(" · ".join(pair) for pair in pairs)
                said = f"dW, row {i + 1}, column {j + 1}: {total} = {numbers(value)[i][j]}"
                assert block.locator(".sum[aria-live=polite]").text_content() == said


def test_a_bias_adds_up_a_column_and_a_large_matrix_says_how_many(visit):
    page = visit("network")
    block = page.locator("#layer-0 .gradient").nth(1)
    block.locator("figure[data-lights] td").nth(1).hover()
    assert block.locator("[data-side=Delta] td.lit").count() == 3
    assert block.locator(".sum").text_content().startswith("db, row 2, column 1: ")
    large = visit("large")
    large.locator("figure[data-lights] td").nth(1).hover()
    assert "⋯ (16 products) = " in large.locator(".sum").first.text_content()


def test_tap_lights_on_a_phone(visit):
    page = visit("network", 360, has_touch=True, is_mobile=True)
    page.locator("figure[data-lights] td").nth(5).tap()
    assert page.locator(".sum").first.text_content().startswith("dW, row 2, column 2: ")


def test_keys_reach_every_entry(visit):
    page = visit("network")
    grid = page.locator("figure[data-lights] table[role=grid]").first
    assert grid.locator("td[tabindex='0']").count() == 1
    page.locator("#quiz").focus()
    page.keyboard.press("Tab")
    assert grid.evaluate("grid => grid.contains(document.activeElement)")
    line = page.locator(".sum").first
    for key, place in (
        ("ArrowRight", "row 1, column 2"),
        ("ArrowDown", "row 2, column 2"),
        ("End", "row 2, column 4"),
        ("ArrowRight", "row 2, column 4"),
        ("Home", "row 2, column 1"),
        ("ArrowUp", "row 1, column 1"),
    ):
        page.keyboard.press(key)
        assert line.text_content().startswith(f"dW, {place}: ")
    assert grid.locator("td[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("td.lit").count() == 0


@pytest.mark.parametrize("name", ["question", "network", "large"])
def test_sliders_show_the_numbers_of_every_step(visit, pages, name):
    page, data = visit(name), pages[name]
    step, rate = page.get_by_role("slider", name="Training step"), page.get_by_role("slider", name="Learning rate")
    check_numbers(page, chosen(data)["steps"][0])
    step.focus()
    page.keyboard.press("ArrowRight")
    check_numbers(page, chosen(data)["steps"][1])
    page.keyboard.press("End")
    for k, run in enumerate(data["runs"]):
        if len(data["runs"]) > 1:
            rate.focus()
            page.keyboard.press("ArrowRight" if k else "Home")
        check_numbers(page, run["steps"][-1])
        fate = f", the loss {'grows' if run['diverged'] else 'falls'}" if len(run["steps"]) > 1 else ""
        assert page.locator("#rate-text").text_content() == f"{number(run['rate'])}{fate}"
        shown = f"{len(run['steps'])} of {len(run['steps'])}, loss {number(run['steps'][-1]['loss'])}"
        assert page.locator("#step-text").text_content() == shown
        assert page.locator(".rate").first.text_content() == number(run["rate"])
        assert page.locator("#curve polyline").count() == len(data["runs"])


def test_the_quiz_covers_results_until_they_are_answered(visit, pages):
    page = visit("quiz")
    step = chosen(pages["quiz"])["steps"][0]
    result = page.locator("figure[data-answer]")
    assert set(result.locator("td").all_text_contents()) == {"?"}
    Y, next_X = page.locator("#layer-0 figure[data-answer]").first, page.locator("#layer-1 figure").first
    assert set(next_X.locator("td").all_text_contents()) == {"?"}  # the same numbers stay covered where they repeat
    score = page.locator("#score[role=status]")

    entry = step["layers"][0]["Y"]["data"][0][0]
    Y.locator("td").first.click()
    page.keyboard.type(f"{entry * 1.02:.4g}")
    page.keyboard.press("Enter")
    assert score.text_content().startswith("Wrong: Y, row 1, column 1")
    assert Y.locator("td.wrong").text_content() == "?"
    page.keyboard.press("Enter")  # the cell still has the focus
    page.keyboard.type(f"{entry:.3g}".replace("-", "−"))
    page.keyboard.press("Enter")
    assert score.text_content().startswith(f"Right: Y, row 1, column 1 is {number(entry)}. 1 of ")
    text = numbers(step["layers"][0]["Y"]["data"])[0][0]
    assert Y.locator("td.right").text_content() == text
    assert next_X.locator("td").first.text_content() == text

    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.keyboard.type("many")
    page.keyboard.press("Enter")
    assert "isn’t a number" in score.text_content()
    page.get_by_role("button", name="Show all").click()
    check_numbers(page, step)
    page.locator("#quiz").uncheck()
    check_numbers(page, step)
    page.locator("#quiz").check()
    assert set(result.locator("td").all_text_contents()) == {"?"}
