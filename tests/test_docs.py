"""What pages and docstrings print is what their programs print, and links lead somewhere."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs/_ext"))
import sources
from precision import EXCEPTIONS

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PROGRAM = re.compile(r"```python\n((?:(?!```).)*)```\n\n```text\n((?:(?!```).)*)```", re.DOTALL)
FIRST_READ = (
    "the-answer",
    "adding-a-rule",
)  # pages; the programs of others run with what is slow, README's in test_readme
OPTIONAL = ("dp_accounting", "equinox", "flax")  # programs that import one of these run where it is installed
PROGRAMS = [
    pytest.param(*program, id=f"{page.stem}-{i}", marks=[] if page.stem in FIRST_READ else [pytest.mark.slow])
    for page in PAGES[1:]
    for i, program in enumerate(PROGRAM.findall(page.read_text()))
]


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_prints_what_its_page_says(program, printed, tmp_path):
    for name in OPTIONAL:
        if re.search(rf"^(import|from) {name}\b", program, re.MULTILINE) and importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    (tmp_path / "mine.py").write_text(program)  # a file, since a repair quotes its lines
    optimized = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}  # as a reader's
    environment = {**os.environ, **optimized, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "mine.py"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert [line.rstrip() for line in run.stdout.splitlines()] == [line.rstrip() for line in printed.splitlines()]


CODE = re.compile(r"^(```+)\{?\w.*?^\1$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def anchors(page):
    """What a link to a heading of the page may say after its #, as code hosts and the site make it of the heading."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?[^)]*\)", CODE.sub("", page.read_text())):
        path = (page.parent / target).resolve() if target else page
        if not target.startswith("http"):
            assert path.exists(), f"{page.name} links to {target}"
            assert not anchor or path.suffix != ".md" or anchor in anchors(path), (
                f"{page.name} links to {target}#{anchor}"
            )


def test_no_formula_begins_with_a_bracket():
    """After \\begin{aligned} or at a line's end, LaTeX takes [...] as an option: it would not be seen."""
    for page in PAGES:
        lost = re.findall(r"(?:\\begin\{\w+\}|\\\\)\s*\[(?!\d+pt\]).*", page.read_text())
        assert not lost, f"{page.name}: {lost}"


def test_no_formula_has_an_escape_of_markdown():
    """A code host may read the backslash of \\, as Markdown's, and show a comma: \\thinspace stays a space."""
    for page in PAGES:
        lost = re.findall(r".*\\[,;!].*", CODE.sub("", page.read_text()))
        assert not lost, f"{page.name}: {lost}"


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs/derivations").glob("*/*.md")), ids=lambda page: page.stem)
def test_quoted_code_stands_in_the_source(page):
    """A derivation quotes its rule's lines to the letter."""
    package = REPOSITORY / "src/handgrad"
    stem = f"{page.parent.name}/{page.stem}.py"
    files = [package / "rules" / stem, *(package / "rules").rglob("_*.py")]
    if not files[0].exists():  # of a layer without a rule
        files = [package / "layers" / stem]
    source = {line.strip() for file in files for line in file.read_text().splitlines()}
    shown = [name for _, names in shown_by(page) for name in names]
    quoted = [
        line.strip()
        for block in re.findall(r"```python\n(.*?)```", PROGRAM.sub("", page.read_text()), re.DOTALL)
        for line in block.splitlines()
    ]
    assert quoted or shown
    for line in quoted:
        assert not line or line in source, f"{page.name} quotes {line!r}"


SOURCE = re.compile(r"^```\{source\} (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
UNDER_A_LINK = re.compile(r"^\[`(\w+\.py)`\]\((\S+)\)\n\n```\{source\} (\S+)\n", re.MULTILINE)


def shown_by(page):
    """(module, names) of each directive `source` on the page."""
    return [(module, names.split()) for module, names in SOURCE.findall(page.read_text())]


@pytest.mark.parametrize("page", [page for page in PAGES if shown_by(page)], ids=lambda page: page.stem)
def test_code_that_a_page_shows_exists(page):
    for module, names in shown_by(page):
        assert all(piece.text for piece in sources.shown(module, names))
    links = UNDER_A_LINK.findall(page.read_text())  # a code host shows no code, and follows the link
    linked, all_blocks = [module for _, _, module in links], [module for module, _ in shown_by(page)]
    assert linked == all_blocks, (
        f"{page.name}: above each block, and a blank line, stands [`stem.py`](its relative path)"
    )
    for name, link, module in links:
        path = REPOSITORY / "docs/derivations/linear/linear.md" if page.stem == "contributing" else page  # its example
        assert ((path.parent / link).resolve(), name) == (sources.path_of(module), sources.path_of(module).name)


def test_menus_have_every_page():
    """The lists of links are the site's menu, and what a code host shows in its place."""
    listed = [page for page in PAGES if page.parent.name == "derivations" or page == REPOSITORY / "docs/index.md"]
    lists = {
        page: re.findall(r"^- \[[^\]]+\]\(([^)]+\.md)\)(?:: (.*))?$", page.read_text(), re.MULTILINE) for page in listed
    }
    linked = {(page.parent / link).resolve() for page, lines in lists.items() for link, _ in lines}
    assert {*PAGES[1:]} - linked == {REPOSITORY / "docs/index.md"}
    for family, of_family in lists[REPOSITORY / "docs/derivations/index.md"]:
        below = lists[REPOSITORY / "docs/derivations" / family]
        assert re.findall(r"\(([^)]+)\)", of_family) == [link for link, _ in below]


RULES = sorted((REPOSITORY / "src/handgrad/rules").glob("*/[!_]*.py"))


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_derivation_shows_both_passes_of_each_rule(path):
    """By the directive, from the source: the page can't fall behind."""
    family, stem = path.parent.name, path.stem
    module = f"handgrad.rules.{family}.{stem}"
    page = REPOSITORY / f"docs/derivations/{family}/{stem}.md"
    shown = {name for of, names in shown_by(page) if of == module for name in names}
    passes = {name for name in sources.definitions(module) if re.fullmatch(r"[a-z]\w*_(forward|backward)", name)}
    assert passes <= shown, f"{page.name} does not show {sorted(passes - shown)}"


def test_source_refuses_unknown_names_and_leaves_docstrings_out():
    (piece,) = sources.shown("handgrad.rules.linear.linear", ["linear_backward"])
    assert piece.text.startswith("def linear_backward(")
    assert '"""' not in piece.text
    assert "Outer(X, dY" in piece.text
    with pytest.raises(LookupError, match=r"linear\.linear does not define linear_sideways"):
        sources.shown("handgrad.rules.linear.linear", ["linear_sideways"])
    with pytest.raises(LookupError, match=r"there is no module handgrad\.rules\.linear\.lineer"):
        sources.shown("handgrad.rules.linear.lineer", ["linear_backward"])


def test_the_exceptions_of_precision_are_those_of_the_page():
    """docs/precision.md has a row for each of precision.EXCEPTIONS, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]+) \| (\d+) \| (.*) \|$", page("precision"), re.MULTILINE)
    table = [(e.op, e.output, ", ".join(e.dtypes), f"{e.ulps:.0f}", e.reason) for e in EXCEPTIONS]
    assert sorted(rows) == sorted(table)


def page(stem):
    return (REPOSITORY / f"docs/{stem}.md").read_text()


DOCTESTS = """
import doctest, importlib, pkgutil
import handgrad

attempted = 0
for module in pkgutil.walk_packages(handgrad.__path__, "handgrad."):
    if not module.name.startswith("handgrad.cli"):
        result = doctest.testmod(importlib.import_module(module.name))
        attempted += result.attempted
        assert not result.failed, module.name
print(attempted)
"""


def test_examples_in_docstrings():
    """As a newcomer would run them: in float32, on one device."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([sys.executable, "-c", DOCTESTS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout) > 0
