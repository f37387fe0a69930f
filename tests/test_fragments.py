"""Programs and pieces of pages that print nothing below them: each runs, after what it takes for granted."""

import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

import handgrad as hg

BLOCK = re.compile(r"```python\n((?:(?!```).)*)```(\n\n```text\n)?", re.DOTALL)
DOCS = REPOSITORY / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if not {"derivations", "notebooks"} & set(page.parts)]
PIECES = {
    (str(page.relative_to(DOCS)), i): block
    for page in PAGES
    for i, (block, printed) in enumerate(BLOCK.findall(page.read_text()))
    if not printed
}
IMPORTS = """
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import handgrad as hg
"""
MODEL = """
model, loss = hg.chain(hg.linear(4), hg.tanh(), hg.linear(3)), hg.softmax_cross_entropy()
x, target, key = jax.random.normal(jax.random.key(0), (6, 5)), jnp.array([0, 1, 2, 2, 1, 0]), jax.random.key(1)
params = model.init(key, x)
"""
SOFTMAX = """
import pytest

def softmax_forward(X):
    P = jax.nn.softmax(X)
    return P, P

softmax = hg.Rule(softmax_forward, lambda P, dP: (P * (dP - jnp.sum(P * dP, -1, keepdims=True)),))
X = np.random.default_rng(0).standard_normal((4, 3))
"""
SQUARE = """
import types

from handgrad import rules as library, Layer, from_rule
from handgrad.cases.case import Case, normal
from handgrad.cases.activations import elementwise

rules = types.SimpleNamespace(square=hg.Rule(lambda X: (X * X, X), lambda X, dY: (2 * X * dY,)))
X = np.random.default_rng(0).standard_normal((4, 3))
"""
WEIGHTS = """
import json

from handgrad.models import LLAMA_STATE, LlamaConfig, llama, llama_state, published_llama, save

published = {"model_type": "llama", "vocab_size": 50, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1}
json.dump(published, open("config.json", "w"))
config = published_llama(published)
params = llama(config).init(jax.random.key(0), jnp.zeros((1, 8), int))
save(llama_state(config), params, "model.safetensors")
"""
LIBRARY = """
import sys, types

def layer_norm(X, scale, bias, epsilon):
    return hg.rules.layer_norm(X, scale, bias, eps=epsilon)

sys.modules["mylib"] = types.SimpleNamespace(normalization=types.SimpleNamespace(layer_norm=layer_norm),
    recurrent=types.SimpleNamespace(lstm=None), softmax=jax.nn.softmax)
"""
BEFORE = {  # what a piece takes for granted: what its page has said before it
    ("adding-a-rule.md", 1): SQUARE,
    ("adding-a-rule.md", 2): SQUARE,
    ("adding-a-rule.md", 3): SQUARE,
    ("adding-a-rule.md", 4): SQUARE,
    ("crosscheck.md", 2): SOFTMAX,
    ("curvature.md", 1): MODEL + "from handgrad.folds import ggn_vector_product; v = params",
    ("factors.md", 1): MODEL + "params = hg.chain(hg.linear(8), hg.layers.batch_norm(), hg.linear(3)).init(key, x)",
    ("factors.md", 2): "init, forward, backward = hg.tanh()[:3]",
    ("howto/explain.md", 0): "",
    ("models.md", 3): WEIGHTS,
    ("models.md", 4): WEIGHTS,
    ("pytest.md", 0): SOFTMAX,
    ("pytest.md", 1): SOFTMAX,
    ("pytest.md", 2): LIBRARY,
    ("results/README.md", 0): "",
    ("training.md", 0): "",
}
RAISES = {("factors.md", 1): "batch_norm couples the examples of a batch"}


def test_every_piece_is_known():
    assert BEFORE.keys() == PIECES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("at", PIECES, ids=lambda at: f"{at[0]}-{at[1]}")
def test_it_runs(at, tmp_path):
    program = "\n".join((IMPORTS, BEFORE[at], PIECES[at]))
    (tmp_path / "test_piece.py").write_text(program)
    tests = "def test_" in PIECES[at]
    command = [sys.executable, *(["-m", "pytest", "-q", "-p", "handgrad_pytest"] if tests else []), "test_piece.py"]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
    }
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)
    if at in RAISES:
        assert f"{hg.InputError.__name__}: " in run.stderr
        assert RAISES[at] in run.stderr
    else:
        assert run.returncode == 0, run.stdout + run.stderr
