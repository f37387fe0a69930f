"""A repair is followed literally, in the text of the line that it names: the gradient is right then."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crosscheck.errors.repair.test_repair import normal, of_rule

from handgrad.crosscheck.errors.repair.repair import find
from handgrad.crosscheck.subject.forms import from_rule

HEAD = "import jax\nimport jax.numpy as jnp\n\n"

# (name, text, arguments, the repair, what it changes in its line, into what)
CROSS_ENTROPY = """
def forward(Z, labels):
    lp = jax.nn.log_softmax(Z)
    m = labels != 3
    l = -jnp.take_along_axis(lp, jnp.where(m, labels, 0)[:, None], 1)[:, 0]
    return jnp.sum(l * m) / jnp.sum(m), (lp, labels, m)

def backward(residuals, dl):
    lp, labels, m = residuals
    hot = jax.nn.one_hot(labels, lp.shape[-1])
    return dl * (jnp.exp(lp) - hot) * m[:, None] / labels.shape[0], None
"""
GATE = """
def forward(a, b):
    return jax.nn.silu(a) * b, (a, b)

def backward(residuals, dY):
    b, a = residuals
    s = jax.nn.sigmoid(a)
    da = dY * b * s * (1 + a * (1 - s))
    return da, dY * a * s
"""
ROTATION = """
def turn(X, c, s):
    A, B = jnp.split(X, 2, -1)
    return jnp.concatenate([A * c - B * s, B * c + A * s], -1)

def forward(X, places):
    return turn(X, jnp.cos(0.3 * places), jnp.sin(0.3 * places)), places

def backward(places, dY):
    c, s = jnp.cos(0.3 * places), jnp.sin(0.3 * places)
    return turn(dY, c, s), None
"""
NONE = """
def forward(X, W):
    return X @ W, (X, W)

def backward(residuals, dY):
    X, W = residuals
    return dY @ W.T, None
"""
TWO_ALIKE = """
def forward(X):
    return jnp.tanh(X), jnp.tanh(X)

def backward(Y, dY):
    return (dY * (1 - Y) * (1 - Y),)
"""
ANOTHER_LOCAL = """
def forward(X):
    r = jnp.sqrt(jnp.mean(X * X, -1, keepdims=True) + 0.1)
    return X / r, (X, jnp.mean(X * X, -1, keepdims=True))

def backward(residuals, dY):
    X, v = residuals
    r = jnp.sqrt(v)
    return (dY / r - X * jnp.mean(dY * X, -1, keepdims=True) / r**3,)
"""
KEPT = """
def forward(X, kept):
    return jnp.where(kept, X / 0.7, 0), kept

def backward(kept, dY):
    return jnp.where(kept, dY, 0), None
"""
CONSTANT = """
def forward(X):
    return 3 * jnp.sin(X), X

def backward(X, dY):
    return (dY * jnp.cos(X),)
"""
BIAS = """
def forward(X, b):
    return X + b[None], None

def backward(_, dY):
    return dY, dY[0]
"""
GROUPS = """
def forward(q, k):
    return q * jnp.repeat(k, q.shape[1] // k.shape[1], 1), (q, k)

def backward(residuals, dY):
    q, k = residuals
    g = q.shape[1] // k.shape[1]
    dk = dY * q
    return dY * jnp.repeat(k, g, 1), dk[:, ::g]
"""
X, W, V = normal((5, 4), (4, 3), (5, 4))
KEEP = np.arange(20).reshape(5, 4) % 3 > 0
CASES = [
    (
        CROSS_ENTROPY,
        (X, np.array([0, 3, 2, 1, 3])),
        "`jnp.sum(m)` in place of `labels.shape[0]` (5), in dZ",
        ("/ labels.shape[0]", "/ jnp.sum(m)"),
    ),
    (GATE, (X, V), "a and b exchanged", ("b, a =", "a, b =")),
    (ROTATION, (X, np.arange(5)[:, None]), "the sign of s flipped in `turn(dY, c, s)`", ("c, s)", "c, -s)")),
    (NONE, (X, W), "X.T @ dY in place of None, in dW", (", None", ", X.T @ dY")),
    (TWO_ALIKE, (X,), "the sign of Y flipped in the {} `1 - Y`", None),
    (
        ANOTHER_LOCAL,
        (X,),
        "`jnp.mean(X * X, -1, keepdims=True) + 0.1` (line 6) in place of v",
        ("(v)", "(jnp.mean(X * X, -1, keepdims=True) + 0.1)"),
    ),
    (KEPT, (X, KEEP), "`jnp.where(kept, dY, 0)` divided by 0.7, in dX", ("0), None", "0) / 0.7, None")),
    (CONSTANT, (X,), "`dY * jnp.cos(X)` × 3", ("(X),", "(X) * 3,")),
    (BIAS, (X, W[:, 0]), "the sum of dY over axis 0 in place of `dY[0]`, in db", ("dY[0]", "dY.sum(0)")),
    (
        GROUPS,
        (X, V[:, :2]),
        "the sum of dk over groups of adjacent indices of axis 1 in place of `dk[:, ::g]`, in dk",
        ("dk[:, ::g]", "dk.reshape(len(dk), -1, g).sum(2)"),
    ),
]
NAMES = "cross_entropy gate rotation none two_alike another_local kept constant bias groups".split()  # noqa: SIM905


def reports(problem) -> Any:
    found = find(problem, problem.leaves, seed=0)
    return found and found.reports()


def functions(path, text):
    path.write_text(text)
    made = {}
    exec(compile(text, str(path), "exec"), made)
    return made["forward"], made["backward"]


@pytest.mark.parametrize(("text", "args", "change", "edit"), CASES, ids=NAMES)
def test_followed_literally(tmp_path, text, args, change, edit):
    problem = from_rule("rule", *functions(tmp_path / "wrong.py", HEAD + text), args, None)
    (repair,) = reports(problem)
    said = repair.change.split(" (or on ")[0]
    line = repair.source
    if edit is None:
        which = ["first", "second"].index(said.split(" in the ")[1].split()[0])
        change = change.format(("first", "second")[which])
        parts = line.split("1 - Y")
        edited = parts[0] + ("1 + Y", "1 - Y")[which] + parts[1] + ("1 - Y", "1 + Y")[which] + parts[2]
    else:
        assert line.count(edit[0]) == 1
        edited = line.replace(*edit)
    assert said == change
    right = (HEAD + text).splitlines()
    right[repair.line - 1] = right[repair.line - 1].replace(line, edited)
    assert of_rule(*functions(tmp_path / "right.py", "\n".join(right)), *args) is None


def test_what_stays_wrong_is_said():
    def forward(A, B):
        T = jnp.tanh(jnp.cumsum(jnp.exp(A) * A, 0))
        return T * jnp.sin(B), (T, A, B)

    def backward(residuals, dY):
        T, A, B = residuals
        return jnp.sin(jnp.cosh(A + 3 * dY) + A) + 1, dY * T * jnp.sin(B)

    ((_, change),) = of_rule(forward, backward, X, V)
    assert change == "cos instead of sin, in dB; dA stays wrong"


def test_a_line_of_the_forward_pass():
    """What is wrong for a call of the backward pass is right for the forward pass."""

    def bent(X):
        return jnp.sin(X) * 2

    def forward(X):
        return bent(X), X

    def backward(X, dY):
        return (dY * bent(X),)

    ((_, change),) = of_rule(forward, backward, X)
    assert " for the call on line " in change
    assert change.endswith(" alone, as the forward pass runs this line too")


def test_an_output_that_is_not_finite_has_none():
    def forward(X, n):
        return jnp.sum(jnp.where(n > 0, X, 0)) / n, (X, n)

    def backward(residuals, dY):
        X, n = residuals
        return 2 * jnp.where(n > 0, jnp.ones_like(X), 0) * dY * n + 1, None

    assert of_rule(forward, backward, X, np.int64(0)) is None


def test_a_reference_in_single_precision():
    """What a reference rounds is no error of the repair's."""

    def forward(X):
        return jnp.tanh(X), jnp.tanh(X)

    def backward(Y, dY):
        return (3 * dY * (1 - Y),)

    def reference(X):
        return (3 * jnp.tanh(X.astype(jnp.float32))).astype(X.dtype)

    problem = from_rule("rule", lambda X: (3 * forward(X)[0], forward(X)[1]), backward, (X,), reference)
    (repair,) = reports(problem)
    assert repair.change.split(" (or on ")[0] == "Y² in place of Y"


def test_a_local_of_the_forward_pass():
    """What the line can't read by its name is said by whose local it is."""

    def forward(X):
        s = jnp.where(jnp.tril(jnp.ones(X.shape, bool)), X, -jnp.inf)
        return jax.nn.softmax(s), X

    def backward(X, dP):
        P = jax.nn.softmax(X * 1.0)
        return (P * (dP - jnp.sum(dP * P, -1, keepdims=True)),)

    ((_, change),) = of_rule(forward, backward, W @ W.T)
    assert change == "s of forward in place of X"
