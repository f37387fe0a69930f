"""How do gradients vanish or explode on their way through a deep network, by initialization and activation?

The factor of each layer's weights holds Δ, the cotangent of its output: ‖Δ‖ is read off layer by layer, from one
backward pass. For weights of variance g² / n a linear network multiplies E‖Δ‖² by g² a layer, which is drawn beside it.

    python experiments/deep_linear.py
    python experiments/deep_linear.py --depth 100 --gains 0.9 1 1.1
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import study
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import handgrad as hg
from handgrad.checks import check_positive

ACTIVATIONS = {"linear": None, "tanh": hg.tanh(), "relu": hg.relu()}


@dataclass(frozen=True)
class Options:
    """Follow the cotangent through the layers of a deep network."""

    depth: int = 50
    """How many layers."""
    width: int = 128
    """Features of each."""
    batch: int = 64
    """Examples, drawn from a normal distribution."""
    gains: tuple[float, ...] = (0.8, 1.0, 1.4142, 1.8)
    """g: weights have the variance g² / width. 1 keeps a linear network's cotangents, √2 those of relu."""
    seed: int = 0
    """Of weights and examples."""
    out: Path = Path("runs/deep_linear")
    """Where norms.png and figures.json go."""


def run(options: Options) -> dict[str, dict[float, np.ndarray]]:
    """For each activation and gain, ‖Δ‖ of each layer as a share of the last one's."""
    study.begin("deep_linear", options, "depth", "width", "batch")
    for gain in options.gains:
        check_positive("deep_linear", "gains", gain)
    key, of_x, of_target = jax.random.split(jax.random.key(options.seed), 3)
    x, target = (jax.random.normal(k, (options.batch, options.width)) for k in (of_x, of_target))
    found = {
        name: {gain: np.asarray(norms(options, activation, gain, key, x, target)) for gain in options.gains}
        for name, activation in ACTIVATIONS.items()
    }
    headings = "activation", "g", "‖Δ‖ in layer 1 / in the last", "a layer", "g, as linear"
    table = study.table(f"the cotangent through {options.depth} layers of {options.width}", *headings)
    for name, by_gain in found.items():
        for gain, of_layers in by_gain.items():
            a_layer = float(of_layers[0]) ** (1 / max(options.depth - 1, 1))
            table.add_row(name, f"{gain:.4g}", f"{of_layers[0]:.2e}", f"× {a_layer:.3f}", f"× {gain:.3f}")
    plot(options.out / "norms.png", options, found)
    figures = {name: {str(g): of.tolist() for g, of in by_gain.items()} for name, by_gain in found.items()}
    study.publish(options.out / "figures.json", options, table, norms=figures)
    return found


def norms(
    options: Options, activation: hg.Layer | None, gain: float, key: jax.Array, x: jax.Array, target: jax.Array
) -> jax.Array:
    """(depth,): the norm of Δ in each layer's factor, over that of the last."""
    W = jax.nn.initializers.variance_scaling(gain**2, "fan_in", "normal")
    layer = hg.linear(options.width, bias=False, init_W=W)
    block = layer if activation is None else hg.chain(layer, activation)
    model = hg.repeat(block, options.depth)

    @jax.jit
    def of_layers(key):
        _, factors = hg.value_and_factors(model, hg.l2_loss())(model.init(key, x), x, target)
        (stacked,) = jax.tree.leaves(factors, is_leaf=hg.factors.is_factor)
        Delta = stacked.factor.Delta
        return jnp.sqrt(jnp.sum(Delta**2, axis=tuple(range(1, Delta.ndim))))

    of_each = of_layers(key)
    return of_each / of_each[-1]


def plot(path: Path, options: Options, found: dict[str, dict[float, np.ndarray]]) -> None:
    """A panel for each activation: the norms, and the law of a linear network."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True)
    layers = np.arange(1, options.depth + 1)
    for axes, (name, by_gain) in zip(panels, found.items(), strict=True):
        for i, (gain, of_layers) in enumerate(by_gain.items()):
            axes.semilogy(layers, of_layers, color=f"C{i}", label=f"g = {gain:.4g}")
            axes.semilogy(layers, gain ** (options.depth - layers), ":", color=f"C{i}")
        axes.set(xlabel="layer", title=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("‖Δ‖ over that of the last layer")
    panels[0].legend(title="dotted: a linear network's law")
    figure.suptitle(f"cotangents through {options.depth} layers of {options.width} features")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    with jax.enable_x64(True):  # 50 layers leave the range of squares in float32
        study.main(run, Options)
