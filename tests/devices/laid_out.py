"""Models that are trained for several steps on one device and in every layout, in one process or in several."""

import jax
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree
from whole_models import normal_params

import handgrad as hg
from handgrad.models import Gpt2Config, LlamaConfig
from handgrad.training import TrainState, fit, init_state, layouts, make_mesh, train_step

RNG = np.random.default_rng(0)
BATCH, STEPS = 8, 5
IDS, LABELS = (RNG.integers(0, 8, (BATCH, 6)) for _ in range(2))
LOSS = hg.softmax_cross_entropy()
OPTIMIZER = optax.adam(0.01, eps=1e-4)  # the gradient of a key's bias is rounding alone, which 1e-8 would amplify
WEIGHTS = np.asarray([0.3, 0.1, 0.0, 0.2, 0.1, 0.05, 0.15, 0.1])  # one is of padding
MLP_RULES = (("0\\.W", P(None, "model")), ("0\\.b", P("model")), ("2\\.W", P("model", None)))
# name: model, x, target, rules of its tensor layout
MODELS = {
    "mlp": (hg.mlp((8, 8, 8), hg.tanh()), RNG.standard_normal((BATCH, 8)), RNG.integers(0, 8, BATCH), MLP_RULES),
    "gpt2": (hg.models.gpt2(Gpt2Config(8, tokens=8, width=8, blocks=2, heads=2)), IDS, LABELS, layouts.GPT2_RULES),
    "llama": (
        hg.models.llama(LlamaConfig(8, width=8, hidden=12, blocks=2, heads=4, kv_heads=2, rotary_base=10.0)),
        IDS,
        LABELS,
        layouts.LLAMA_RULES,
    ),
}
# name: (mesh, rules) -> a layout on eight devices
LAYOUTS = {
    "data": (8, 1, lambda mesh, rules: layouts.data_parallel(mesh)),
    "fully sharded": (8, 1, lambda mesh, rules: layouts.fully_sharded(mesh)),
    "tensor": (4, 2, lambda mesh, rules: layouts.tensor_parallel(mesh, rules)),
    "tensor and fully sharded": (4, 2, lambda mesh, rules: layouts.tensor_parallel(mesh, rules, fully_sharded=True)),
}


def layout_of(name: str, layout: str, axes: str) -> layouts.Layout:
    """A model's layout on eight devices."""
    data, model, make = LAYOUTS[layout]
    return make(make_mesh(data, model, axes=axes), MODELS[name][3])


def start(name: str) -> TrainState:
    """A model's state before the first step."""
    model, x, *_ = MODELS[name]
    return init_state(normal_params(model, x), OPTIMIZER, jax.random.key(0))


def trained(
    name: str, state: TrainState, batch: tuple, layout: layouts.Layout | None = None
) -> tuple[TrainState, list[float]]:
    """The state after some steps of Adam on one batch, and the objective before each."""
    model = layout.gathered(MODELS[name][0]) if layout else MODELS[name][0]
    step, values = jax.jit(train_step(model, LOSS, OPTIMIZER)), []
    for _ in range(STEPS):
        state, value = step(state, *batch)
        values.append(float(value))
    return state, values


def fitted(layout: layouts.Layout | None, batch_size: int = 8) -> tuple[TrainState, list[float]]:
    """The mlp's state after some epochs of `fit`, and the mean loss of each; an epoch's last batch is of 5 examples."""
    model, rng = MODELS["mlp"][0], np.random.default_rng(1)
    data = rng.standard_normal((21, 8)), rng.integers(0, 8, 21)
    epochs = fit(model, LOSS, OPTIMIZER, start("mlp"), data, epochs=STEPS, batch_size=batch_size, layout=layout)
    states, metrics = zip(*epochs, strict=True)
    return states[-1], [of_epoch["loss"] for of_epoch in metrics]


def off(found: PyTree, expected: PyTree) -> float:
    """The largest difference of any two numbers."""

    def difference(a, b):
        a, b = (jax.random.key_data(c) if jax.dtypes.issubdtype(c.dtype, jax.dtypes.prng_key) else c for c in (a, b))
        return float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))))

    return max(jax.tree.leaves(jax.tree.map(difference, found, expected)))
