"""More than a gradient: per-example norms, clipped sums, noise scale and K-FAC, against vmap(jax.grad)."""

from typing import Any

import jax

from handgrad import folds, layers
from handgrad.backprop import value_and_factors
from handgrad.cli.bench.workload import Program, Workload, integers, normal, started
from handgrad.folds.curvature import Kronecker
from handgrad.layers import Layer
from handgrad.models import Gpt2Config, gpt2, lenet5, mlp

LOSS = layers.softmax_cross_entropy()


def network(kind: str, batch: int, width: int = 1, tokens: int = 1) -> tuple[Layer, Any, Any]:
    """A model, its x and its target."""
    if kind == "lenet5":
        return lenet5(), normal(1, batch, 28, 28, 1), integers(2, 10, batch)
    if kind == "mlp":
        return mlp((width,) * 4 + (10,), layers.relu()), normal(1, batch, width), integers(2, 10, batch)
    ids = integers(1, 64, batch, tokens + 1)
    return gpt2(Gpt2Config(64, tokens, width, 1, 4)), ids[:, :-1], ids[:, 1:]


def fold(kind: str, of: str, **sizes: Any) -> Program:
    """A fold over a network's factors."""
    model, x, target = network(of, **sizes)
    losses_and_factors = value_and_factors(model, LOSS)

    def norms(*arguments: Any) -> Any:
        return folds.sq_norms(losses_and_factors(*arguments)[1])

    def noise_scale(*arguments: Any) -> Any:
        return tuple(folds.noise_scale(losses_and_factors(*arguments)[1]))

    def kfac(*arguments: Any) -> Any:
        blocks = folds.kfac_factors(losses_and_factors(*arguments)[1])
        found = jax.tree.leaves(blocks, is_leaf=lambda node: isinstance(node, Kronecker))
        return [(block.A, block.G) for block in found if isinstance(block, Kronecker)]

    clipped = folds.clipped_grad(model, LOSS, l2_clip_norm=1.0)
    hand = {"norms": norms, "clipped": clipped, "noise-scale": noise_scale, "kfac": kfac}[kind]
    return Program(hand, None, (started(model, x), x, target))


def _fold(kind: str, of: str, sizes: dict[str, int]) -> Workload:
    tiny = {"batch": 3} | ({"width": 8} if "width" in sizes else {}) | ({"tokens": 4} if "tokens" in sizes else {})
    float64 = 1e-5 if of == "gpt2-block" else 1e-9  # jax.nn.dot_product_attention takes its softmax in float32
    baseline = kind.replace("-", "_")
    return Workload(f"{kind}-{of}", fold, {"kind": kind, "of": of, **sizes}, tiny, (baseline,), float64)


SIZES = {
    "mlp": {"batch": 128, "width": 512},
    "lenet5": {"batch": 64},
    "gpt2-block": {"batch": 16, "width": 256, "tokens": 64},
}
WORKLOADS = (
    *(_fold(kind, of, SIZES[of]) for kind in ("norms", "clipped", "noise-scale") for of in SIZES),
    _fold("kfac", "mlp", SIZES["mlp"]),
)
