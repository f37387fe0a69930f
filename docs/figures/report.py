"""A report of the cross-checker on a wrong gradient, line by line with what each says.

python docs/figures/report.py
"""

import importlib
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from _style import COLOR, box, canvas, save, say, svg

import handgrad as hg

MINE = """import jax.numpy as jnp


def forward(X, W):
    return jnp.tanh(X @ W), (X, W)


def backward(residuals, dY):
    X, W = residuals
    dZ = dY * (1 - jnp.tanh(X @ W) ** 2)
    return dZ @ W.T, X.T @ dZ / X.shape[0]
"""
WIDTH, LEFT, CHARACTER, SIZE = 680, 30, 6.92, 11.5  # a character of DejaVu Sans Mono takes 0.602 of its size

# How a line begins, the part of it to mark, what that says, the note's color.
NOTES = [
    ("FAIL  backward", r"^FAIL", "the verdict", COLOR.red),
    ("FAIL  backward", r"W(?=: mean)", "the argument", COLOR.orange),
    ("FAIL  backward", r"mean instead.*$", "what is wrong with its gradient", COLOR.blue),
    ("repair", r"(?<=`)return.*(?=`)", "the line to change …", COLOR.orange),
    ("        is right", r"the division.*$", "… and the smallest change that makes it right", COLOR.green),
    ("FAIL    W", r"(?<=\]  )\S+", "relative error", COLOR.red),
    ("FAIL    W", r"(?<=e-01    )\S+", "what rounding explains", COLOR.green),
    ("        by hand", r"by hand -\S+(?=,)", "yours", COLOR.red),
    ("        by hand", r"autodiff -.*$", "three independent values of the same entry", COLOR.green),
    ("PASS", r"^PASS", "the other argument's gradient is right", COLOR.green),
    ("PASS", r"\S+$", "the smallest error it would detect", COLOR.blue),
    (
        "  FAIL",
        r"FAIL  adjoint",
        "an identity that every right gradient satisfies, whatever the reference",
        COLOR.purple,
    ),
]


def report() -> list[str]:
    """The report's lines; the reference's and the settings' are left out, long ones are wrapped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.py"
        path.write_text(MINE)
        sys.path.insert(0, folder)
        mine = importlib.import_module("mine")
        sys.path.remove(folder)
        rng = np.random.default_rng(0)
        X, W = rng.standard_normal((8, 3)), rng.standard_normal((3, 2))
        text = str(hg.check_rule(mine.forward, mine.backward, X, W)).replace(str(path), "mine.py")
    text = re.sub(r"`  is right", "`\n        is right", text)
    text = re.sub(r"(?<=passed): .*", "", text)
    text = re.sub(r": (?=⟨)|: (?=\d+\.\d+ on the left)", ":\n        ", text)
    return [line for line in text.splitlines() if not line.startswith(("settings", "culprit"))]


def write(axes, lines: list[str]) -> float:
    """The lines in a panel, notes below what they explain; returns the panel's lower edge."""
    notes, y = list(NOTES), 12
    for line in lines:
        y += 19 if line else 10
        say(axes, LEFT, y, line, ha="left", va="baseline", family="DejaVu Sans Mono", fontsize=SIZE)
        here = [row for row in notes if line.startswith(row[0])]
        found = [(match, note, color) for _, pattern, note, color in here for match in re.finditer(pattern, line)]
        notes = [row for row in notes if row not in here]
        for match, _, color in found:
            start, end = (LEFT + CHARACTER * at for at in match.span())
            axes.plot([start, end], [y + 5, y + 5], color=color, linewidth=2, clip_on=False)
        y += 19 * bool(found) + 3
        right = 0
        for match, note, color in found:
            x = max(LEFT + CHARACTER * match.start(), right + 14)
            say(axes, x, y, note, ha="left", va="baseline", color=color, fontsize=11.5)
            right = x + 6.5 * len(note)
        y += 5 * bool(found)
    if notes:
        raise ValueError(f"no line of the report begins as these notes want: {notes}")
    return y


def draw() -> str:
    """The figure, as SVG."""
    lines = report()
    height = write(canvas(WIDTH, 100)[1], lines) + 26
    figure, axes = canvas(WIDTH, height)
    box(axes, 4, 4, WIDTH - 8, height - 8, COLOR.line, fill=0.12)
    write(axes, lines)
    return svg(
        figure,
        "A report of the cross-checker, annotated",
        "The report on a backward pass that divides a weight's gradient by the batch. Notes mark the verdict, the "
        "argument, the kind of error, the line to change, the change, the error, the tolerance, the four values of the "
        "worst entry, the smallest error that the run would detect, and the contract that fails.",
    )


if __name__ == "__main__":
    save(__file__, draw())
