"""Every page of the site in a browser: wide and narrow, light and dark.

The site is the folder in HANDGRAD_SITE or, without it, built here. Needs the extras `docs` and `browser`, and chromium.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

# One worker builds it for all tests; what is built may be opened by several.
pytestmark = [pytest.mark.slow, *([] if "HANDGRAD_SITE" in os.environ else [pytest.mark.xdist_group("site")])]

WIDTHS, SCHEMES = (1280, 360), ("light", "dark")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# What is wrong with the mathematics of a page.
MATHEMATICS = """async () => {
    if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
    const wrong = document.querySelectorAll("mjx-merror, mjx-container [style*='color: red']");
    const faults = [...wrong].map(e => "formula: " + e.textContent);
    for (const math of document.querySelectorAll(".math"))
        if (!math.querySelector("mjx-container")) faults.push("not rendered: " + math.textContent);
    const prose = document.querySelector("article").cloneNode(true);
    prose.querySelectorAll("pre, code, mjx-container, script, style, svg").forEach(e => e.remove());
    const raw = prose.textContent.match(/.{0,20}(\\$|\\\\\\(|\\\\\\[|\\\\[a-z]{3,}).{0,20}/);
    return raw ? [...faults, "raw: " + raw[0]] : faults;
}"""

# What sticks out, where the page or the box of its content is wider than what shows of it.
TOO_WIDE = """() => {
    const boxes = [document.scrollingElement, ...document.querySelectorAll(".content")];
    if (boxes.every(box => box.scrollWidth <= box.clientWidth + 1)) return [];
    const right = document.querySelector("article").getBoundingClientRect().right;
    const out = [...document.querySelectorAll("article *")].filter(e => e.getBoundingClientRect().right > right + 1);
    return ["too wide: " + (out.slice(0, 3).map(e => e.tagName + " " + e.textContent.slice(0, 40)).join(" | ") || "?")];
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages."""
    if "HANDGRAD_SITE" in os.environ:
        return Path(os.environ["HANDGRAD_SITE"]).resolve()
    pytest.importorskip("myst_nb", reason="without the extra docs, the site can't be built")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    """A chromium without a window."""
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    api = pytest.importorskip("playwright.sync_api", reason="without the extra browser, no page is opened")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def faults_of(page, path, site) -> list[str]:
    """What is wrong with a page: one load, then each width in each color scheme."""
    from axe_playwright_python.sync_playwright import Axe

    said: list[str] = []
    listeners = {
        "console": lambda message: said.append(message.text) if message.type in ("error", "warning") else None,
        "pageerror": lambda error: said.append(str(error)),
        "requestfailed": lambda request: said.append(f"failed: {request.url}"),
        "request": lambda r: None if r.url.startswith((site.as_uri(), "data:")) else said.append(f"asks for {r.url}"),
    }
    for event, listener in listeners.items():
        page.on(event, listener)
    page.goto(path.as_uri(), wait_until="load")
    said += page.evaluate(MATHEMATICS)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        said += [f"{fault} at {width}" for fault in page.evaluate(TOO_WIDE)]
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"runOnly": ["color-contrast"], "resultTypes": ["violations"]})
        nodes = [node for violation in found.response["violations"] for node in violation["nodes"]]
        said += [f"contrast, {scheme}: {node['target']} {node['failureSummary']}" for node in nodes[:3]]
    for event, listener in listeners.items():
        page.remove_listener(event, listener)
    return said


@pytest.mark.parametrize("part", ["api", "derivations", "others"])
def test_every_page(part, site, browser):
    pages = sorted(path for path in site.rglob("*.html") if path.relative_to(site).parts[0] != "_static")
    of_part = {"api": "api", "derivations": "derivations"}
    chosen = [path for path in pages if of_part.get(path.relative_to(site).parts[0], "others") == part]
    assert chosen
    page = browser.new_page(reduced_motion="reduce")
    faults = {str(path.relative_to(site)): faults_of(page, path, site) for path in chosen}
    assert {path: said for path, said in faults.items() if said} == {}


def test_pictures_follow_the_theme(site, browser):
    """The switch of the page, not only the system, turns the colors of the drawings."""
    page = browser.new_page(color_scheme="light")
    page.goto((site / "index.html").as_uri())
    paper = "getComputedStyle(document.querySelector('.drawing svg path')).fill"
    light = page.evaluate(paper)
    page.evaluate("document.body.dataset.theme = 'dark'")
    assert page.evaluate(paper) != light
