"""What each policy for residuals keeps between the passes, in bytes: save, recompute, mask.

python docs/figures/residual_policies.py
"""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import jax
import jax.extend
import jax.numpy as jnp
from _style import COLOR, canvas, save, say, svg
from matplotlib.patches import Rectangle

from handgrad import rules
from handgrad.models import Gpt2Config, gpt2

WIDTH, LEFT, UNIT = 700, 240, 36  # a unit of the bars is the input's own size
KINDS = {"arguments": (COLOR.muted, 0.18), "output": (COLOR.blue, 0.35), "made": (COLOR.orange, 0.9)}


def array(*shape: int, dtype: type = jnp.float32) -> jax.ShapeDtypeStruct:
    """A shape in place of an array: nothing is computed."""
    return jax.ShapeDtypeStruct(shape, dtype)


def kept(forward: Callable, *args, **options) -> dict[str, int]:
    """Bytes of what forward keeps: arguments, its output, and arrays that are made for the backward pass alone."""
    leaves, tree = jax.tree.flatten(args)
    run = jax.make_jaxpr(lambda *leaves: forward(*jax.tree.unflatten(tree, leaves), **options), return_shape=True)
    with jax.enable_x64(False):
        traced, shapes = run(*leaves)
    outputs, bytes_of = len(jax.tree.leaves(shapes[0])), dict.fromkeys(KINDS, 0)
    arguments, results = set(traced.jaxpr.invars), set(traced.jaxpr.outvars[:outputs])
    for v in dict.fromkeys(v for v in traced.jaxpr.outvars[outputs:] if isinstance(v, jax.extend.core.Var)):
        kind = "arguments" if v in arguments else "output" if v in results else "made"
        shape: Any = v.aval
        bytes_of[kind] += prod(shape.shape) * shape.dtype.itemsize
    return bytes_of


def rows() -> list[tuple[str, str, dict[str, float]]]:
    """(rule, policy, multiples of its input's bytes) of each bar; float32."""
    X, image, key = array(64, 1024), array(32, 28, 28, 64), jax.random.key(0)
    n = 256
    lstm = (array(32, 64, n), array(n, 4 * n), array(n, 4 * n), array(4 * n), array(32, n), array(32, n))
    heads = (array(4, 512, 8, 64),) * 3
    table = [
        ("relu", "save", rules.relu, (X,), {"residuals": "save"}),
        ("relu", "mask", rules.relu, (X,), {"residuals": "mask"}),
        ("dropout", "save", rules.dropout, (X, key), {"rate": 0.1, "residuals": "save"}),
        ("dropout", "recompute", rules.dropout, (X, key), {"rate": 0.1, "residuals": "recompute"}),
        ("max_pool", "save", rules.max_pool, (image,), {"window": 2, "residuals": "save"}),
        ("max_pool", "recompute", rules.max_pool, (image,), {"window": 2, "residuals": "recompute"}),
        ("lstm", "save", rules.lstm, lstm, {"residuals": "save"}),
        ("lstm", "recompute", rules.lstm, lstm, {"residuals": "recompute"}),
        ("attention", "save", rules.attention, heads, {"causal": True}),
        ("tiled_attention", "recompute", rules.tiled_attention, heads, {"causal": True}),
    ]
    found = []
    for name, policy, rule, args, options in table:
        own = prod(args[0].shape) * args[0].dtype.itemsize
        found.append((name, policy, {k: v / own for k, v in kept(rule.forward, *args, **options).items()}))
    return found


def of_gpt2(policy: Literal["save", "recompute"]) -> float:
    """MiB that a GPT-2 of eight blocks keeps beside its parameters."""
    model = gpt2(Gpt2Config(vocabulary=256, tokens=256, width=256, blocks=8, heads=4, residuals=policy))
    ids = array(4, 256, dtype=jnp.int32)
    with jax.enable_x64(False):
        params = jax.eval_shape(model.init, jax.random.key(0), ids)
    return kept(model.forward, params, ids)["made"] / 2**20


def bar(axes, y: float, name: str, policy: str, widths: dict[str, float], total: str) -> None:
    """A line: the rule, the policy, the bar, its length in words."""
    say(axes, 22, y, name, ha="left", family="DejaVu Sans Mono", fontsize=12.5)
    say(axes, LEFT - 12, y, policy, ha="right", color=COLOR.muted, fontsize=12.5)
    x = LEFT
    for kind, width in widths.items():
        color, alpha = KINDS[kind]
        axes.add_patch(Rectangle((x, y - 9), width, 17, facecolor=color, alpha=alpha, linewidth=0))
        x += width
    say(axes, x + 8, y, total, ha="left", fontsize=12)


def draw() -> str:
    """The figure, as SVG."""
    figure, axes = canvas(WIDTH, 530)
    say(axes, 22, 28, "Bytes kept for the backward pass, as multiples of the input's", ha="left", fontsize=15)
    words = {
        "arguments": "arguments, live anyway",
        "output": "output, read by the next layer",
        "made": "made for the backward pass",
    }
    x = 22
    for kind, text in words.items():
        color, alpha = KINDS[kind]
        axes.add_patch(Rectangle((x, 50), 13, 13, facecolor=color, alpha=alpha, linewidth=0))
        say(axes, x + 20, 57, text, ha="left", fontsize=12, color=COLOR.muted)
        x += 44 + 6.6 * len(text)
    y, before = 76, ""
    for name, policy, sizes in rows():
        y += 27 if name == before or name == "tiled_attention" else 35
        shown = "" if name == before else name
        total = sum(sizes.values())
        words = f"{total:.2g} ×" if total > 0.001 else "a random key"
        bar(axes, y, shown, policy, {k: UNIT * v for k, v in sizes.items()}, words)
        before = name
    y += 44
    say(axes, 22, y, "A GPT-2 of 8 blocks, beside its parameters", ha="left", fontsize=15)
    sizes = {"save": of_gpt2("save"), "recompute": of_gpt2("recompute")}
    for policy, size in sizes.items():
        y += 29
        name = "gpt2" if policy == "save" else ""
        bar(axes, y, name, policy, {"made": 390 * size / sizes["save"]}, f"{size:.0f} MiB")
    return svg(
        figure,
        "What each residual policy keeps",
        "Bars of the bytes that relu, dropout, max_pool, lstm and attention keep under each policy, split into "
        "arguments, outputs and arrays made for the backward pass; below, a GPT-2 that saves or recomputes its blocks.",
    )


if __name__ == "__main__":
    save(__file__, draw())
