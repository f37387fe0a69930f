"""The gradient under JAX's transformations: what it is worth inside somebody's program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from handgrad.crosscheck.evidence import tolerance
from handgrad.crosscheck.evidence.evidence import Evidence
from handgrad.crosscheck.evidence.noise import nudged
from handgrad.crosscheck.report.report import Contract
from handgrad.crosscheck.subject.arguments import Leaves, largest, put, wide, widened
from handgrad.crosscheck.subject.compiling import compiled_program, on_device, precise
from handgrad.crosscheck.subject.messages import in_short


def transforms(evidence: Evidence, names: tuple[str, ...]) -> list[Contract]:
    """Look at each transformation named: "jit", "vmap", "scan", "checkpoint", "shard", "second_order"."""
    found = []
    for name in names:
        words, check = CHECKS[name]
        if not evidence.programs.compiles:
            found.append(Contract(words, "SKIPPED", "it needs concrete numbers, so JAX can't trace it"))
            continue
        if not all(np.isfinite(np.asarray(g, wide(g.dtype))).all() for draw in evidence.hand for g in draw):
            # The rows tell whether that is wrong: XLA's fusion may overflow where steps don't, by autodiff too.
            found.append(Contract(words, "SKIPPED", "it isn't finite here"))
            continue
        with precise(evidence.programs.problem.x64):
            try:
                status, detail = "PASS", check(evidence)
            except Exception as error:
                found.append(Contract(words, "FAIL", f"raised {type(error).__name__}: {in_short(error)}"))
                continue
        if detail.startswith("skipped: "):
            status, detail = "SKIPPED", detail.removeprefix("skipped: ")
        elif detail:
            status = "FAIL"
        found.append(Contract(words, status, detail))
    return found


def jit_equals_eager(evidence: Evidence) -> str:
    """Compiled and step by step: XLA may fuse, which rounds otherwise, and no more."""
    programs, leaves, dYs = evidence.programs, evidence.leaves, evidence.dYs[0]

    def apart(in_numpy: bool) -> str:
        return _apart(evidence, programs.by_hand_eager(leaves, dYs, in_numpy)[1], evidence.hand[0])

    return programs.in_numpy_first(apart, lambda detail: not detail)


def vmap_equals_loop(evidence: Evidence) -> str:
    """Two sets of inputs at once, and one after the other."""
    stacked, one_by_one = _two(evidence)
    compiled, _ = compiled_program(jax.vmap(evidence.programs.problem.run), stacked)
    return _apart_both(evidence, compiled(*stacked)[1], one_by_one)


def scan_equals_loop(evidence: Evidence) -> str:
    """Two sets of inputs in a lax.scan, and the gradient taken through it."""
    problem = evidence.programs.problem
    (leaves, dYs), one_by_one = _two(evidence)

    def through(leaves: Leaves) -> Leaves:
        return jax.lax.scan(lambda carry, one: (carry, problem.differentiable(one)), 0, leaves)[1]

    together = jax.jit(lambda leaves, dYs: _gradient(evidence, through, leaves, dYs))(leaves, dYs)
    return _apart_both(evidence, together, one_by_one)


def checkpoint_equals_plain(evidence: Evidence) -> str:
    """Under jax.checkpoint, which runs the forward pass again."""
    f = jax.checkpoint(evidence.programs.problem.differentiable)
    leaves, dYs = on_device(evidence.leaves), on_device(evidence.dYs[0])
    found = jax.jit(lambda leaves, dYs: _gradient(evidence, f, leaves, dYs))(leaves, dYs)
    return _apart(evidence, found, evidence.hand[0])


def sharded_equals_whole(evidence: Evidence) -> str:
    """Spread over every device along the batch, and on one."""
    devices, batch = jax.devices(), evidence.batch
    if len(devices) < 2:
        return "skipped: there is one device; XLA_FLAGS=--xla_force_host_platform_device_count=8 makes eight"
    count = next((n for n in range(len(devices), 1, -1) if batch and batch % n == 0), 0)
    if not count:
        return f"skipped: a batch of {batch} can't be spread evenly over {len(devices)} devices"
    mesh = Mesh(np.array(devices[:count]), ("batch",))

    def spread(leaf: Any) -> jax.Array:
        spec = PartitionSpec("batch") if leaf.shape[:1] == (batch,) else PartitionSpec()
        return jax.device_put(jnp.asarray(leaf), NamedSharding(mesh, spec))

    leaves, dYs = [spread(a) for a in evidence.leaves], [spread(a) for a in evidence.dYs[0]]
    return _apart(evidence, jax.jit(evidence.programs.problem.run)(leaves, dYs)[1], evidence.hand[0])


def second_order_equals_autodiff(evidence: Evidence) -> str:
    """Reverse over reverse: the gradient of ⟨gradient, v⟩, by hand and twice by autodiff."""
    problem = evidence.programs.problem
    if not evidence.trusted:
        return "skipped: autodiff of the reference is wrong here"
    rng = np.random.default_rng(4)
    vs = [rng.standard_normal(leaf.truth.shape[1:]) for leaf in evidence.wanted]

    def twice(f: Callable[[Leaves], Leaves]) -> Callable[[Leaves, Leaves, Leaves], Leaves]:
        def inner(chosen: Leaves, leaves: Leaves, dYs: Leaves) -> Leaves:
            return _gradient(evidence, f, put(leaves, problem.wanted, chosen), dYs)

        def outer(leaves: Leaves, dYs: Leaves, vs: Leaves) -> Leaves:
            _, pull = jax.vjp(lambda chosen: inner(chosen, leaves, dYs), [leaves[i] for i in problem.wanted])
            return pull(vs)[0]

        return jax.jit(outer)

    cast = [np.asarray(v).astype(leaf.value.dtype) for v, leaf in zip(vs, evidence.wanted, strict=True)]
    given = [on_device(part) for part in (evidence.leaves, evidence.dYs[0], cast)]
    try:
        theirs = twice(problem.primal)(*given)
    except Exception as error:
        return f"skipped: the reference can't be differentiated twice: {type(error).__name__}"
    mine = twice(problem.differentiable)(*given)
    with precise(True):
        truth = twice(problem.primal)(*(on_device(widened(part)) for part in (evidence.leaves, evidence.dYs[0], cast)))
    for leaf, one, two, true in zip(evidence.wanted, mine, theirs, truth, strict=True):
        one, two, true = (np.asarray(a).astype(wide(a.dtype)) for a in (one, two, true))
        bound = tolerance.of_second_order(
            largest(two - true), leaf.value.dtype, evidence.depth, max(largest(true), leaf.scale)
        )
        if largest(one - true) > bound:
            return f"{leaf.name}: {largest(one - true):.3g} off"
    return ""


CHECKS: dict[str, tuple[str, Callable[[Evidence], str]]] = {
    "jit": ("jit equals eager", jit_equals_eager),
    "vmap": ("vmap equals a loop", vmap_equals_loop),
    "scan": ("under lax.scan", scan_equals_loop),
    "checkpoint": ("under jax.checkpoint", checkpoint_equals_plain),
    "shard": ("sharded equals unsharded", sharded_equals_whole),
    "second_order": ("second order", second_order_equals_autodiff),
}


def _gradient(evidence: Evidence, f: Callable[[Leaves], Leaves], leaves: Leaves, dYs: Leaves) -> Leaves:
    """The gradient of f at the wanted leaves, pulled back from dYs."""
    wanted = evidence.programs.problem.wanted
    Ys, pull = jax.vjp(lambda chosen: f(put(leaves, wanted, chosen)), [leaves[i] for i in wanted])
    return pull([dY.astype(Y.dtype) for dY, Y in zip(dYs, Ys, strict=True)])[0]


def _two(evidence: Evidence) -> tuple[list[Leaves], list[Leaves]]:
    """Two neighboring sets of inputs: stacked, and what each gives alone."""
    rng = np.random.default_rng(5)
    near = [nudged(int(rng.integers(2**32)), leaf) for leaf in evidence.leaves]
    sets = [(evidence.leaves, evidence.dYs[0]), (near, evidence.dYs[-1 % evidence.random])]
    one_by_one = [evidence.programs.by_hand(*given)[1] for given in sets]
    stacked = [
        [(np if isinstance(a, np.ndarray) else jnp).stack([a, b]) for a, b in zip(one, two, strict=True)]
        for one, two in zip(*sets, strict=True)
    ]
    return on_device(stacked), one_by_one


def _apart_both(evidence: Evidence, together: Leaves, one_by_one: list[Leaves]) -> str:
    for s, alone in enumerate(one_by_one):
        if detail := _apart(evidence, [np.asarray(g)[s] for g in together], alone):
            return detail
    return ""


def _apart(evidence: Evidence, one: Leaves, two: Leaves) -> str:
    """What differs by more than rounding; "" where nothing does."""
    for leaf, a, b in zip(evidence.wanted, one, two, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{leaf.name} is {a.dtype} {a.shape} for {b.dtype} {b.shape}"
        a, b = (np.asarray(array).astype(wide(array.dtype)) for array in (a, b))
        with np.errstate(invalid="ignore"):
            off = largest(a - b)
        differs = off > tolerance.of_transform(leaf.tolerance) and not leaf.cancelled
        if differs or not np.array_equal(np.isnan(a), np.isnan(b)):
            return f"{leaf.name}: {off:.3g} apart"
    return ""
