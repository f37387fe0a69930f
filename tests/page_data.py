"""Data of a page, made with NumPy: linear layers, tanh between them, squared error, gradient descent."""

from itertools import pairwise

import numpy as np

LARGEST = 64


def numbers(array):
    """An entry as JSON holds it."""
    if np.ndim(array):
        return [numbers(entry) for entry in array]
    return float(array) if np.isfinite(array) else {"nan": "nan", "inf": "inf", "-inf": "-inf"}[str(float(array))]


def matrix(array):
    array = np.asarray(array, float)
    array = array[:, None] if array.ndim == 1 else array  # a vector is a column
    if array.size <= LARGEST:
        return {"shape": list(array.shape), "data": numbers(array)}
    whole = {"min": array.min(), "max": array.max(), "mean": array.mean()}
    summary = {name: numbers(entry) for name, entry in whole.items()}
    return {"shape": list(array.shape), "summary": {**summary, "corner": numbers(array[:4, :4])}}


def gradient(value, A, Delta):
    checked = {"autodiff": numbers(np.float64(1e-16)), "difference": {"index": [0, 0], "value": numbers(value.flat[0])}}
    return {"value": matrix(value), "A": None if A is None else matrix(A), "Delta": matrix(Delta), **checked}


@np.errstate(all="ignore")
def run(X, target, weights, activation, bias, rate, steps):
    """Gradient descent at one learning rate, as the page reads it."""
    weights = [(W.copy(), b.copy()) for W, b in weights]
    said = []
    for _ in range(steps):
        inputs, layers = X, []
        for n, (W, b) in enumerate(weights):
            out = inputs @ W + b
            params = {"W": W.copy(), "b": b.copy()} if bias else {"W": W.copy()}
            layers.append({"X": inputs, "Y": out, "params": params})
            inputs = out
            if activation and n < len(weights) - 1:
                inputs = np.tanh(out)
                layers.append({"X": out, "Y": inputs, "params": {}})
        losses = ((inputs - target) ** 2).sum(1)
        dY = first = 2 * (inputs - target) / len(X)
        at = len(weights) - 1
        for layer in reversed(layers):
            layer["dY"] = dY
            layer["grads"] = layer["updated"] = {}
            if layer["params"]:
                W, b = weights[at]
                dW, db = layer["X"].T @ dY, dY.sum(0)
                grads = {"W": gradient(dW, layer["X"], dY), "b": gradient(db, None, dY)}
                layer["grads"] = {name: grads[name] for name in layer["params"]}
                weights[at] = W - rate * dW, b - rate * db if bias else b
                at -= 1
                updated = dict(zip(("W", "b"), weights[at + 1], strict=True))
                layer["updated"] = {name: matrix(updated[name]) for name in layer["params"]}
                dY = dY @ W.T
            else:
                dY = dY * (1 - layer["Y"] ** 2)
            layer["dX"] = dY
        for layer in layers:
            layer["params"] = {name: matrix(array) for name, array in layer["params"].items()}
            layer |= {name: matrix(layer[name]) for name in ("X", "Y", "dX", "dY")}
        both = {"target": matrix(target), "dprediction": matrix(first), "parts": {}, "layers": layers}
        said.append({"loss": numbers(losses.mean()), "losses": numbers(losses), **both})
    return {"rate": rate, "diverged": bool(not losses.mean() <= 1e6), "steps": said}


def data(X, target, weights, rates, steps, activation=True, bias=True, title="", intro="", rate=0):
    """What page() takes."""
    product = "Y = X W + 1 bᵀ" if bias else "Y = X W"
    of = {"dX": "dX = Δ Wᵀ", "dW": "dW = Xᵀ Δ", "db": "db = Δᵀ 1"}
    names = ["W", "b"] if bias else ["W"]
    backward = [{"of": k, "text": of[k], "latex": ""} for k in ("dX", *("d" + name for name in names))]
    forward = {"text": product, "latex": ""}
    linear = {"kind": "linear", "forward": forward, "backward": backward, "params": names, "outer": ["W"]}
    dX = [{"of": "dX", "text": "dX = dY ∘ (1 − Y ∘ Y)", "latex": ""}]
    tanh = {"kind": "tanh", "forward": {"text": "Y = tanh(X)", "latex": ""}, "backward": dX, "params": [], "outer": []}
    layers = [layer for _ in weights for layer in ((linear, tanh) if activation else (linear,))]
    layers = [{"name": str(n + 1), **layer} for n, layer in enumerate(layers[:-1] if activation else layers)]
    loss = {
        "kind": "squared_error",
        "forward": {"text": "C_b = Σ_j (A_bj − Y_bj)²", "latex": ""},
        "backward": {"text": "dA = 2 (A − Y) / batch", "latex": ""},
    }
    words = {"title": title, "intro": intro, "rates": list(rates), "rate": rate, "batch": len(X), "signs": ""}
    runs = [run(X, target, weights, activation, bias, rate, steps) for rate in rates]
    return {**words, "layers": layers, "loss": loss, "runs": runs}


def question(steps=20, rates=(0.003, 0.007, 0.0153894, 0.02, 0.035)):
    one = [(np.array([[-23.1]]), np.zeros(1))]
    title = "One weight, in matrices"
    intro = "A single weight learns to turn 5.7 into 50.1. Every matrix is 1 × 1."
    here = {"activation": False, "bias": False, "title": title, "intro": intro, "rate": min(1, len(rates) - 1)}
    return data(np.array([[5.7]]), np.array([[50.1]]), one, rates, steps, **here)


def chain(steps=20):
    two = [(np.array([[0.8]]), np.zeros(1)), (np.array([[-0.6]]), np.zeros(1))]
    here = {
        "activation": False,
        "bias": False,
        "title": "Two weights in a chain",
        "intro": "Two layers of one weight each.",
    }
    return data(np.array([[1.5]]), np.array([[2.0]]), two, (0.02, 0.05, 0.2), steps, rate=1, **here)


def network(sizes=(3, 4, 2), batch=3, steps=12, rates=(0.05, 0.2, 0.8), title=None, **options):
    """A network of these sizes with tanh, drawn at random."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((n, m)) / np.sqrt(n), 0.1 * rng.standard_normal(m)) for n, m in pairwise(sizes)]
    X, target = rng.standard_normal((batch, sizes[0])), rng.standard_normal((batch, sizes[-1]))
    title = title or f"A network of sizes {', '.join(map(str, sizes))}, with {batch} examples"
    intro = "Each row of X is an example. The forward pass runs down the page, the backward pass up."
    return data(X, target, weights, rates, steps, title=title, intro=intro, **options)
