"""A training step of GPT-2 by hand and by jax.grad: master weights in float32, products in another dtype, AdamW."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import study
from baselines import gpt2 as baseline
from jaxtyping import PyTree

import handgrad as hg
from accelerator.part import Part
from handgrad.cli.bench.rates import product_rate
from handgrad.cli.bench.row import Plan, in_turn, quartiles
from handgrad.models import Gpt2Config, gpt2
from handgrad.models.flops import product_flops

WRONG = 1e-2  # two ways' losses, before a step and after it, are no further apart: a share
Gradient = Callable[..., tuple[Any, PyTree]]  # (params, ids, following) -> (loss, grads)


class Sizes(NamedTuple):
    """GPT-2's sizes, and the batch; the defaults are those of the 124 million parameters."""

    vocabulary: int = 50257
    width: int = 768
    blocks: int = 12
    heads: int = 12
    tokens: int = 1024
    batch: int = 16


class Way(NamedTuple):
    """Value and gradient, and whether its parameters are the baseline's."""

    gradient: Gradient
    theirs: bool


def ways(sizes: Sizes) -> dict[str, Way]:
    """By hand and by jax.grad in the forms that are usual, the most telling first."""
    forms = {"jax.grad, scan": {}}
    if jax.default_backend() == "gpu":
        forms |= {"jax.grad, scan, cuDNN's attention": {"attention": "cudnn"}}
        forms |= {"jax.grad, unrolled, cuDNN's attention": {"attention": "cudnn", "unroll": sizes.blocks}}
    forms |= {"jax.grad, unrolled": {"unroll": sizes.blocks}, "jax.checkpoint, blocks": {"checkpoint": True}}
    of_jax = {
        name: Way(jax.value_and_grad(functools.partial(baseline.loss, heads=sizes.heads, **form)), theirs=True)
        for name, form in forms.items()
    }
    by_hand = {
        name: Way(hg.value_and_grad(model(sizes, residuals), hg.softmax_cross_entropy()), theirs=False)
        for name, residuals in (("by hand", "save"), ("by hand, blocks rerun", "recompute"))
    }
    first, *others = of_jax
    return {
        "by hand": by_hand.pop("by hand"),
        first: of_jax[first],
        **by_hand,
        **{name: of_jax[name] for name in others},
    }


def model(sizes: Sizes, residuals: Any) -> hg.Layer:
    """GPT-2 by hand."""
    config = Gpt2Config(sizes.vocabulary, sizes.tokens, sizes.width, sizes.blocks, sizes.heads, residuals=residuals)
    return gpt2(config)


def stepping(gradient: Gradient, optimizer: optax.GradientTransformation, dtype: str) -> Callable[..., Any]:
    """((params, opt_state), ids, following) -> ((params, opt_state), loss)."""

    def cast(tree: PyTree, dtype: str) -> PyTree:
        return jax.tree.map(lambda a: a.astype(dtype), tree)

    def step(state: tuple[PyTree, Any], ids: Any, following: Any) -> tuple[tuple[PyTree, Any], Any]:
        params, opt_state = state
        value, grads = gradient(cast(params, dtype), ids, following)
        updates, opt_state = optimizer.update(cast(grads, "float32"), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value.astype(jnp.float32)

    return step


def prepared(
    step: Callable[..., Any], state: Any, batch: tuple[Any, ...]
) -> tuple[dict[str, Any], Callable[..., None]]:
    """What compiling says, the losses of two steps, and a function that takes so many more."""
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, *batch).compile()
    figures = {"compile_s": time.perf_counter() - start, "temp_bytes": study.temp_bytes(compiled)}
    state, losses = jax.device_put(state), []
    for _ in range(2):
        state, loss = compiled(state, *batch)
        losses.append(float(loss))

    def run(times: int) -> None:
        nonlocal state
        loss = None
        for _ in range(times):
            state, loss = compiled(state, *batch)
        jax.block_until_ready(loss)

    return figures | {"losses": losses}, run


def run(part: Part, sizes: Sizes, dtype: str, plan: Plan) -> dict[str, dict[str, Any]]:
    """Every way compiled and run twice, then those that can in turn."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, sizes.vocabulary, (sizes.batch, sizes.tokens + 1), np.int32)
    batch = jax.device_put((ids[:, :-1], ids[:, 1:]))
    params = jax.device_get(jax.jit(model(sizes, "save").init)(jax.random.key(0), batch[0]))
    both, optimizer = (params, baseline.parameters(params)), optax.adamw(1e-4)
    plain = functools.partial(baseline.loss, heads=sizes.heads)
    flops = product_flops(jax.value_and_grad(plain), both[1], *batch)
    rate = part.attempt("the rate of products", lambda: product_rate(dtype))
    part.write(sizes=sizes._asdict(), dtype=dtype, flops=flops, product_rate=rate)
    figures, runs = {}, {}
    for name, way in ways(sizes).items():

        def prepare(way: Way = way) -> Any:
            params = both[way.theirs]
            return prepared(stepping(way.gradient, optimizer, dtype), (params, optimizer.init(params)), batch)

        if made := part.attempt(name, prepare):
            figures[name], runs[name] = made
            part.write(ways=figures)
    right = agreeing(part, figures)
    for name, (wall, cpu) in timed(part, {name: runs[name] for name in right}, plan).items():
        seconds = float(np.median(wall))
        figures[name] |= {
            "ms": 1e3 * seconds,
            "quartiles_ms": [1e3 * q for q in quartiles(wall)],
            "cpu_ms": 1e3 * float(np.median(cpu)),
            "rounds": len(wall),
            "tokens_per_s": sizes.batch * sizes.tokens / seconds,
            "product_share": flops / seconds / rate if rate else None,
        }
    part.write(ways=figures)
    return figures


def agreeing(part: Part, figures: dict[str, dict[str, Any]]) -> list[str]:
    """The ways whose losses are those of the first by jax.grad; a fast wrong answer is none, and not timed."""
    reference = next((name for name in figures if not name.startswith("by hand")), None)
    right = []
    for name, found in figures.items():
        expected = figures[reference or name]["losses"]
        if np.allclose(found["losses"], expected, rtol=WRONG):
            right.append(name)
        else:
            part.failed[name] = f"its losses are {found['losses']} and those of {reference} {expected}"
    return right


def timed(part: Part, runs: dict[str, Callable[[int], None]], plan: Plan) -> dict[str, Any]:
    """(wall, CPU) seconds of each way's steps, in turn."""
    samples = part.attempt("all in turn", lambda: in_turn(runs, plan), late=True) if runs else None
    return {name: taken.T for name, taken in (samples or {}).items()}
