"""handgrad check on a user's own module: what is recognized, and a sentence for what isn't."""

import json
import sys

import pytest

from handgrad.checks import InputError
from handgrad.cli import inputs, target
from handgrad.cli.inputs import parse_shapes
from handgrad.cli.target import Request, check_target
from handgrad.crosscheck import Report

MODULE = """
import jax, jax.numpy as jnp, numpy as np
from types import SimpleNamespace
import handgrad

@jax.custom_vjp
def soft(x):
    return jax.nn.softmax(x)

def keep(x):
    y = soft(x)
    return y, y

soft.defvjp(keep, lambda y, dy: (y * (dy - (y * dy).sum(-1, keepdims=True)),))

@jax.custom_vjp
def twice(x):
    return jax.nn.softmax(x)

twice.defvjp(keep, lambda y, dy: (2 * y * (dy - (y * dy).sum(-1, keepdims=True)),))

def product_forward(X, W):
    return X @ W, (X, W)

def product_backward(residuals, dY):
    X, W = residuals
    return dY @ W.T, X.T @ dY

pair = (product_forward, product_backward)
space = SimpleNamespace(forward=product_forward, backward=product_backward)
one_short = (product_forward, lambda residuals, dY: product_backward(residuals, dY)[:1])
dense = handgrad.linear(3)
number = 7

def embed_forward(table, ids):
    return table[ids], ids

embed_backward = embed_forward

def einsum(X, W):
    return jnp.einsum("bi,io->bo", X, W)

def drawn(rng):
    return rng.standard_normal((3, 4)), rng.standard_normal((4, 2))

def constant():
    return (np.ones((3, 4)),)

def array():
    return np.ones(3)

def raising():
    raise RuntimeError("no data\\nat all")

def refusing(X, W):
    raise RuntimeError("no:\\n  reference")

def leaving(*residuals):
    raise SystemExit(0)

left = (product_forward, leaving)

def __getattr__(name):
    raise KeyError(name) if name == "odd" else AttributeError(name)

def outer_forward(x, y=None):
    return jnp.outer(x, x), x

outer_backward = outer_forward

def of_numpy_forward(X):
    return np.tanh(np.asarray(X)), np.asarray(X)

of_numpy_backward = of_numpy_forward

def many_forward(*X):
    return sum(X), ("static", len(X))

def many_backward(residuals, dY):
    return (dY,) * residuals[1]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A user's folder, the current one, with a module of their own."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found")
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in ("mine", "broken", "leaving"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("request_", "leaves"),
    [
        (Request("mine:soft", shapes="3,4"), {"x": "float32"}),
        (Request("mine:product", args="mine:drawn"), {"X": "float64", "W": "float64"}),
        (Request("mine:dense", shapes="5,4"), {"params.W": "float32", "params.b": "float32", "x": "float32"}),
        (Request("handgrad.rules:softmax", shapes="3,4"), {"X": "float32"}),
    ],
    ids=lambda value: value.target if isinstance(value, Request) else "",
)
def test_every_form(request_, leaves):
    report = check_target(request_)
    assert report.verdict == "PASS", report
    assert {row.leaf: row.dtype for row in report.rows} == leaves
    assert report.name == request_.target


def test_what_the_checker_is_asked(folder, monkeypatch):
    """How a target is recognized, what its arguments are, and which reference and dtype it is checked with."""
    monkeypatch.syspath_prepend(folder)
    import mine

    asked = []

    def check_custom_vjp(f, reference, *args, **settings):
        asked.append(((f, *args), {"reference": reference, **settings}))

    monkeypatch.setattr(target, "check_rule", lambda *args, **settings: asked.append((args, settings)))
    monkeypatch.setattr(target, "check_custom_vjp", check_custom_vjp)
    for request in (
        Request("mine:soft", shapes="3,4", dtype="float64"),
        Request("mine:product", args="mine:drawn", dtype="float32", search=True),
        Request("mine:pair", shapes="5,7;7,3", reference="mine:einsum", seed=1),
        Request("mine:pair", shapes="5,7;7,3", reference="mine:einsum", seed=1),
        Request("mine:space", shapes="5,7;7,3", dtype="complex128", seed=2),
        Request("mine:einsum", shapes="5,7;7,3", reference="mine:einsum"),
    ):
        check_target(request)
        assert asked[-1][1]["name"] == request.target
        assert (asked[-1][1]["seed"], asked[-1][1]["search"]) == (request.seed, request.search)
    parts = [mine.product_forward, mine.product_backward]
    soft, product, pair, again, space, einsum = ([*args] for args, _ in asked)
    assert (soft[0], product[:2], pair[:2], space[:2], einsum[0]) == (mine.soft, parts, parts, parts, mine.einsum)
    dtypes = [[a.dtype.name for a in args if hasattr(a, "dtype")] for args, _ in asked]
    assert dtypes == [["float64"], ["float64"] * 2, *[["float32"] * 2] * 2, ["complex128"] * 2, ["float32"] * 2]
    assert [s["dtype"] for _, s in asked] == ["float64", "float32", None, None, "complex128", None]
    assert [s["reference"] for _, s in asked] == [None, None, mine.einsum, mine.einsum, None, mine.einsum]
    assert (pair[2] == again[2]).all()
    assert not (pair[2] == space[2].real).all()


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (Request("mine"), "target must be written as package.module:name, got 'mine'"),
        (Request("mine:", shapes="3"), "target must be written as package.module:name, got 'mine:'"),
        (Request("nowhere.at_all:f"), "target nowhere.at_all:f can't be imported: no module nowhere.at_all, because"),
        (Request("nowhere:f"), "target nowhere:f can't be imported: no module nowhere"),
        (Request("broken:f"), "can't be imported: no module broken, because there is no module nowhere_to_be_found"),
        (Request("leaving:f"), "target leaving:f can't be imported: SystemExit: 0"),
        (Request("mine:nothing", shapes="3"), "target mine:nothing can't be imported: mine has no nothing"),
        (Request("mine:pair.x", shapes="3"), "target mine:pair.x can't be imported: mine has no pair.x"),
        (Request("mine:number", shapes="3"), r"pair, got mine:number: int$"),
        (Request("mine:einsum", shapes="3"), r"pair, got mine:einsum: function, which needs a reference$"),
        (
            Request("mine.py:soft", shapes="3"),
            "target must be written as package.module:name, got 'mine.py:soft'; write mine:soft",
        ),
        (Request("..mine:soft", shapes="3"), r"target \.\.mine:soft can't be imported: TypeError: "),
        (Request("mine:odd", shapes="3"), "target mine:odd can't be imported: KeyError: 'odd'"),
        (Request("mine:soft", shapes="3", rtol=-1.0), "rtol must be a finite number of at least 0, or None, got -1.0"),
        (
            Request("mine:dense", shapes="3,4", argnums=(0,)),
            "argnums is for functions and rules, and mine:dense is a lay",
        ),
        (Request("mine:soft"), "a target needs either --args or --shapes"),
        (Request("mine:soft", "mine:constant", "3"), "a target needs either --args or --shapes"),
        (Request("mine:soft", shapes="3", reference="mine:no"), "reference mine:no can't be imported: mine has no no"),
        (Request("mine:soft", shapes="3", reference="mine:number"), "reference must be a function, got int"),
        (Request("mine:soft", "mine:no"), "args mine:no can't be imported: mine has no no"),
        (Request("mine:soft", "mine:number"), "args must be a function that returns a tuple, got int"),
        (Request("mine:soft", "mine:raising"), r"args mine:raising raised RuntimeError: no data$"),
        (Request("mine:soft", "mine:array"), r"must return a tuple of arguments, got float64 \(3,\)"),
        (Request("mine:soft", shapes="3,x"), "shapes must be whole numbers as in \"5,7;7,3;3\", got '3,x'"),
        (Request("mine:soft", shapes="3,-1"), "shapes must be whole numbers"),
        (Request("mine:soft", "mine:leaving"), r"args mine:leaving raised SystemExit: 0$"),
        (Request("mine:dense", shapes="5,4;3"), r"mine:dense takes 1 argument \(x\), got 2 by shapes 5,4;3$"),
        (Request("mine:product", shapes="5,4"), r"mine:product takes 2 arguments \(X, W\), got 1 by shapes 5,4$"),
        (Request("mine:product", "mine:constant"), r"takes 2 arguments \(X, W\), got 1 by args mine:constant$"),
        (Request("mine:outer", shapes="3;3;3"), r"takes 1 to 2 arguments \(x, y\), got 3 by shapes 3;3;3$"),
        (
            Request("mine:product", shapes="5,7;8,3", dtype="float64"),
            r"mine:product can't be called with float64 arrays of shapes \(5, 7\); \(8, 3\): TypeError: dot_general",
        ),
        (Request("mine:embed", shapes="6,4;3"), r"must have integer .*; integers come with --args$"),
        (Request("mine:dense", shapes="3"), r"mine:dense can't be called with .* of shapes \(3,\): InputError: "),
        (
            Request("mine:leaving", shapes="3", reference="mine:einsum"),
            r"mine:leaving can't be called with float32 arrays of shapes \(3,\): SystemExit: 0$",
        ),
        (
            Request("mine:product", shapes="2000000,1000000;1,1"),
            "shapes are 8,000,000,000,004 bytes of float32, and checking them takes about 300,000,000,000,150 bytes",
        ),
        (Request("mine:outer", shapes="3000000"), r"shapes are 12,000,000 bytes of float32, .* about [\d,]{17,} bytes"),
    ],
    ids=lambda value: value.target if isinstance(value, Request) else "",
)
def test_a_sentence(request_, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        check_target(request_)
    assert str(caught.value).startswith("check: ")
    assert len(str(caught.value).splitlines()) == 1


def test_shapes_of_functions_that_say_little_of_them(folder, monkeypatch):
    """Of a NumPy function the outputs' shapes are unknown, and any number of arguments may be right."""
    monkeypatch.syspath_prepend(folder)
    import mine

    assert [x.shape for x in inputs.draw("f", mine.of_numpy_forward, [(3, 4)], "float32", 0)] == [(3, 4)]
    assert check_target(Request("mine:many", shapes="3;3;3")).ok
    monkeypatch.delattr(inputs.os, "sysconf")
    with pytest.raises(InputError, match=f"this machine has {inputs.OTHERWISE:,}$"):
        inputs.draw("f", mine.of_numpy_forward, [(10**5, 10**5)], "float32", 0)


def test_a_target_that_leaves_is_invalid():
    report = check_target(Request("mine:left", args="mine:drawn"))
    assert (report.verdict, report.culprit) == ("INVALID", "hand")
    assert "raised SystemExit while being checked: 0" in report.reason


def test_shapes():
    assert parse_shapes("5,7;7,3;3") == [(5, 7), (7, 3), (3,)]
    assert parse_shapes(" (5, 7) ;; (3,)") == [(5, 7), (), (3,)]
    assert parse_shapes("0,2") == [(0, 2)]


def test_a_wrong_gradient_leaves_1_and_both_files(folder, command_line):
    json_file, page = folder / "new" / "o.json", folder / "o.html"
    options = "--shapes", "3,4", "--dtype", "float64", "--json", json_file, "--html", page
    status, printed, _ = command_line("check", "mine:twice", *options)
    assert status == 1
    assert printed.startswith("FAIL  mine:twice: x: 2 × too large\n")
    assert f"written: {json_file}\nwritten: {page}\n" in printed
    report = Report.from_json(json_file.read_text())
    assert (report.verdict, report.rows[0].diagnosis) == ("FAIL", "2 × too large")
    assert "2 × too large" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "verdict"),
    [
        (("mine:soft", "--shapes", "3,4"), 0, "PASS"),
        (("mine:soft", "--args", "mine:constant"), 3, "INCONCLUSIVE"),
        (("mine:one_short", "--args", "mine:drawn"), 1, "INVALID"),
        (("mine:pair", "--args", "mine:drawn", "--reference", "mine:refusing"), 3, "INVALID"),
    ],
)
def test_exit_status(arguments, status, verdict, command_line):
    found, out, _ = command_line("check", *arguments)
    assert found == status
    assert out.startswith(f"{verdict}  {arguments[0]}")
    assert out.endswith(f"\n{verdict}  {arguments[0]}\n"), "of a long report the first line has scrolled away"
    narrow = "float32: an error below" in out
    assert narrow == ("--shapes" in arguments), "float64 would detect more"


def test_settings_of_the_command_line(command_line):
    """Two times the gradient, within 60 %, of the first argument alone, under no transformation."""
    loose = "--rtol", "1.5", "--argnums", "0", "--transforms", "scan", "--no-differences", "--no-repair"
    status, out, _ = command_line("check", "mine:twice", "--shapes", "3,4", "--dtype", "float64", *loose)
    assert (status, "rtol=1.5" in out, "lax.scan" in out, "vmap" in out) == (3, True, True, False)
    assert "float64 detects" not in out
    options = "--atol", "0.125", "--repair-seconds", "0"
    status, out, _ = command_line("check", "mine:twice", "--shapes", "3,2", *options)
    assert (status, "stopped after 0 s" in out, "atol=0.125, repair_seconds=0.0)" in out) == (1, True, False)
    assert "transforms=('jit', 'vmap'), repair_seconds=0.0, atol=0.125)" in out


def test_an_error_of_the_checkers_own_is_no_wrong_gradient(command_line, monkeypatch):
    def broken(*args, **settings):
        raise KeyError("subfuns")

    monkeypatch.setattr(target, "check_custom_vjp", broken)
    status, _, said = command_line("check", "mine:soft", "--shapes", "3,4")
    assert (status, "KeyError: 'subfuns'" in said) == (3, True)


def test_usage_leaves_2_and_one_sentence(command_line):
    sentence = "handgrad: check: target nowhere:f can't be imported: no module nowhere\n"
    assert command_line("check", "nowhere:f", "--shapes", "3") == (2, "", sentence)


def test_an_output_that_cannot_be_written_is_told_first(folder, command_line):
    (folder / "old.json").write_text(json.dumps("kept"))
    found = command_line("check", "mine:soft", "--shapes", "3", "--json", "old.json", "--html", folder)
    sentence = f"handgrad: check: --html must be a file that can be written, got {folder} (Is a directory)\n"
    assert found == (2, "", sentence)
    assert json.loads((folder / "old.json").read_text()) == "kept"
