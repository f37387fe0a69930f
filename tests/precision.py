"""How precise a rule is over the whole range of a dtype, in units in the last place (ulps).

A Subject is a rule on a grid of inputs, from the smallest normal number of a dtype to the largest finite one. Its
forward and backward pass run as one program on the whole grid; each element of each output is compared with a truth in
float64. The bar is a few ulps, or twice the error of the best rival there: jax.grad of what a JAX user would write, and
PyTorch where it is installed. What misses both bars stands in EXCEPTIONS with its reason, and in docs/precision.md.

Subnormal numbers are left out: XLA flushes them to zero on most devices.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import optimized_jit

import handgrad as hg
from handgrad import rules

Run = Callable[..., tuple[Any, ...]]  # (*inputs, cotangent of the output) -> (output, *cotangents of the inputs)

# Where exp, σ, erf and their like begin to round to 0 or 1, underflow or overflow, in the usual dtypes.
SPECIAL = (0.0, 0.5, 1.0, 2.0, 4.0, 6.5, 9.0, 11.09, 17.0, 20.0, 30.0, 37.0, 44.0, 64.0, 88.0, 90.0, 104.0, 710.0)


@dataclass(frozen=True)
class Exempt:
    """An output that misses the bar.

    Attributes:
      op: the rule.
      output: the output's name, as in Subject.outputs.
      dtypes: the dtypes in which it misses.
      ulps: its own bar.
      reason: why: one sentence, that of docs/precision.md.
    """

    op: str
    output: str
    dtypes: tuple[str, ...]
    ulps: float
    reason: str


OF_THE_OUTPUT = (
    "it keeps its output, which the next layer keeps anyway, and where that rounds to 1 nothing tells the slope"
)
THROUGH_ZERO = "the slope goes through 0 between -2 and 0: a rounding of its terms is many ulps of their sum"

EXCEPTIONS: tuple[Exempt, ...] = (
    Exempt("sigmoid", "dX", ("float32",), 2**24, OF_THE_OUTPUT),
    Exempt("sigmoid", "dX", ("bfloat16",), 2**8, OF_THE_OUTPUT),
    Exempt("tanh", "dX", ("float32",), 2**24, OF_THE_OUTPUT),
    Exempt("tanh", "dX", ("bfloat16",), 2**8, OF_THE_OUTPUT),
    Exempt("silu", "dX", ("float32",), 256, THROUGH_ZERO),
    Exempt("mish", "dX", ("float32",), 256, THROUGH_ZERO),
    Exempt("gelu", "dX", ("float32",), 256, THROUGH_ZERO),
    Exempt("swiglu", "dU", ("float32",), 256, THROUGH_ZERO),
    Exempt("geglu", "dU", ("float32",), 256, THROUGH_ZERO),
)


@dataclass(frozen=True, eq=False)
class Subject:
    """A rule with its options, and the inputs of a grid.

    Attributes:
      op: the rule, `<op>_forward` and `<op>_backward` of handgrad.rules.
      name: what is special about options and inputs.
      outputs: a name for the output and for each of the cotangents.
      inputs: dtype -> the rule's arguments and the cotangent of its output, NumPy arrays of this dtype.
      truth: the same as `run` in float64, from an independent formula: autodiff(primal) where autodiff is accurate in
        float64 over the whole range, NumPy where it is not.
      run: forward and backward pass; by_hand(op, **options) if None.
      rivals: name -> the same by another library.
      options: the rule's.
      bars: name of an output -> ulps; 8 for the others.
      moved: name of an output f -> |x ∂f/∂x| from the inputs in float64, x being an input that f is sensitive to: one
        ulp of x moves f by about one ulp of this, which counts as right. Only for a true difference of inputs.
    """

    op: str
    name: str
    outputs: tuple[str, ...]
    inputs: Callable[[Any], tuple[np.ndarray, ...]]
    truth: Run
    run: Run | None = None
    rivals: dict[str, Run] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    moved: dict[str, Callable[..., np.ndarray]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def grid(dtype: Any, dense: int = 4001) -> np.ndarray:
    """Numbers of both signs, ascending, and 0: every normal number of a dtype of 16 bits; of a longer one eight in each
    octave, `dense` between −100 and 100, and many around each of SPECIAL."""
    dtype = np.dtype(dtype)
    if dtype.itemsize == 2:
        with np.errstate(invalid="ignore"):  # a signaling NaN
            wide = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float64)
    else:
        info = jnp.finfo(dtype)
        rng = np.random.default_rng(0)
        octaves = np.arange(info.minexp, info.maxexp)
        sizes = np.exp2(octaves)[:, None] * np.sort(rng.uniform(1, 2, (len(octaves), 8)), axis=1)
        near = np.array(SPECIAL)[:, None] + np.linspace(-0.5, 0.5, 101) ** 3
        ends = [float(info.tiny), float(info.max)]
        wide = np.concatenate([sizes.ravel(), near.ravel(), np.linspace(-100, 100, dense), ends])
        wide = np.concatenate([wide, -wide]).astype(dtype).astype(np.float64)
    size = np.abs(wide)
    normal = (size >= float(jnp.finfo(dtype).tiny)) & (size <= float(jnp.finfo(dtype).max)) | (size == 0)
    return np.unique(wide[normal]).astype(dtype)


def against(*axes: Any, dtype: Any) -> tuple[np.ndarray, ...]:
    """Every combination of the elements of these vectors, flat: one array for each."""
    return tuple(a.ravel() for a in np.meshgrid(*(np.asarray(axis).astype(dtype) for axis in axes), indexing="ij"))


def cotangents(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers of both signs, neither small nor large; 1 at least, so that a slope that overflows is past saving."""
    rng = np.random.default_rng(1)
    return (rng.choice([-1, 1], shape) * rng.uniform(1, 2, shape)).astype(dtype)


def by_hand(op: str, **options: Any) -> Run:
    """The rule itself; cotangents that are None are left out."""
    forward, backward = getattr(rules, op)

    def run(*arguments):
        *inputs, dY = arguments
        Y, residuals = forward(*inputs, **options)
        kept = {name: value for name, value in options.items() if name != "residuals"}
        return Y, *hg.materialize(tuple(d for d in backward(residuals, dY, **kept) if d is not None))

    return run


def autodiff(function: Callable[..., Any]) -> Run:
    """jax.vjp of a function of the inputs, in their dtype."""

    @optimized_jit
    def run(*arguments):
        *inputs, dY = arguments
        Y, pull = jax.vjp(function, *inputs)
        return Y, *pull(dY)

    return run


def sigma(x: np.ndarray) -> np.ndarray:
    """σ(x) in NumPy, with all digits on both sides."""
    E = np.exp(-np.abs(x))
    return np.where(x < 0, E, 1) / (1 + E)


def slope_of(value: Callable[..., np.ndarray], slope: Callable[..., np.ndarray]) -> Run:
    """The truth of an activation from its value and its slope in NumPy."""

    def run(X, dY):
        with np.errstate(all="ignore"):
            return value(X), dY * slope(X)

    return run


def tanh_form(x: Any) -> Any:
    """x σ(2u): the tanh form of gelu, of which a float64 keeps all digits on the left as well."""
    return x * jax.nn.sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


# Where σ is a subnormal number and flushed to zero, but x σ is none: left out.
FLUSHED = {"silu": (-92, -87), "swiglu": (-92, -87), "mish": (-92, -87), "tanh-form": (-11, -10)}


def unflushed(op: str, name: str, dtype: Any, dense: int = 4001) -> np.ndarray:
    """The grid of an activation, or of a gate."""
    numbers = grid(dtype, dense)
    low, high = FLUSHED.get(op) or FLUSHED.get(name) or (0, 0)
    return numbers[~((numbers > low) & (numbers < high))]


def activation(
    op: str,
    primal: Callable[..., Any],
    of_torch: str | Callable[..., Any],
    truth: Run | None = None,
    name: str = "grid",
    **options: Any,
) -> Subject:
    """An activation on the grid; the truth is float64 autodiff of its primal where that keeps its digits."""

    def inputs(dtype):
        X = unflushed(op, name, dtype)
        return X, cotangents(X.shape, dtype)

    rivals = {"jax.grad": autodiff(primal), **by_torch(of_torch)}
    return Subject(op, name, ("Y", "dX"), inputs, truth or autodiff(primal), rivals=rivals, options=options)


def assert_known(rows: dict[str, tuple[Any, list[float], list[float], list[float]]]) -> None:
    """Name -> (rule, x, y, slope): what mathematics says, in float32 and float64, to a few ulps."""
    for dtype in ("float32", "float64"):

        @optimized_jit
        def run(xs):
            found = {}
            for name, x in xs.items():
                y, residuals = rows[name][0].forward(x)
                found[name] = y, rows[name][0].backward(residuals, jnp.ones_like(x))[0]
            return found

        found = run({name: np.array(x, dtype) for name, (_, x, *_) in rows.items()})
        for name, (_, _, y, slope) in rows.items():
            for one, exact in zip(found[name], (y, slope), strict=True):
                assert one.dtype == dtype
                rtol = 4 * float(jnp.finfo(dtype).eps)
                np.testing.assert_allclose(one, np.array(exact, dtype), rtol=rtol, atol=0, err_msg=name)


def by_torch(function: str | Callable[..., Any], **options: Any) -> dict[str, Run]:
    """{"torch": PyTorch's autograd of function(torch, *inputs)}, or of a function of torch.nn.functional by name; empty
    where PyTorch isn't installed."""
    if find_spec("torch") is None:
        return {}

    def run(*arguments):
        import torch

        of_inputs = functools.partial(
            getattr(torch.nn.functional, function) if isinstance(function, str) else functools.partial(function, torch),
            **options,
        )
        name = np.dtype(arguments[0].dtype).name
        *inputs, dY = (torch.tensor(np.asarray(a, np.float64)).to(getattr(torch, name)) for a in arguments)
        leaves = [a.requires_grad_() for a in inputs]
        Y = of_inputs(*leaves)
        found = (Y, *torch.autograd.grad(Y, leaves, dY, allow_unused=True))
        return tuple(a if a is None else a.detach().double().numpy().astype(arguments[0].dtype) for a in found)

    return {"torch": run}


def ulps(found: Any, truth: np.ndarray) -> np.ndarray:
    """Each element's distance from the truth in ulps of the truth.

    What is beyond the largest number counts as the first number after it, so that an infinity is right there and wrong
    elsewhere. Both below 64 times the smallest normal number: no error, as a part of it may have been flushed to zero.
    NaN: infinite error.
    """
    info = jnp.finfo(found.dtype)
    tiny, eps, top = float(info.tiny), float(info.eps), float(info.max) * (1 + float(info.eps))
    found, truth = np.clip(np.asarray(found, np.float64), -top, top), np.clip(np.asarray(truth, np.float64), -top, top)
    assert found.shape == truth.shape, (found.shape, truth.shape)
    assert not np.isnan(truth).any()
    error = np.abs(found - truth) / (eps * np.exp2(np.floor(np.log2(np.maximum(np.abs(truth), tiny)))))
    error = np.where(np.isnan(error), np.inf, error)
    return np.where((np.abs(found) <= 64 * tiny) & (np.abs(truth) <= 64 * tiny), 0, error)


@functools.lru_cache(maxsize=1)
def in_float64(subject: Subject, dtype: Any) -> tuple[list[np.ndarray], tuple[Any, ...]]:
    """The inputs, and the truth of them."""
    inputs = [np.asarray(a, np.float64) for a in subject.inputs(dtype)]
    return inputs, subject.truth(*inputs)


def errors(subject: Subject, dtype: Any) -> dict[str, dict[str, np.ndarray]]:
    """Output -> {"handgrad" or a rival's name: ulps of each element}. All that JAX computes is one program."""
    inputs, (_, truth) = subject.inputs(dtype), in_float64(subject, dtype)
    assert len(truth) == len(subject.outputs)
    runs = {"handgrad": subject.run or by_hand(subject.op, **subject.options), **subject.rivals}
    torchs = runs.pop("torch", None)
    found = optimized_jit(lambda *inputs: {name: run(*inputs) for name, run in runs.items()})(*map(jnp.asarray, inputs))
    if torchs is not None:
        found["torch"] = torchs(*inputs)
    with np.errstate(all="ignore"):
        return {
            output: {name: ulps(values[i], truth[i]) for name, values in found.items() if values[i] is not None}
            for i, output in enumerate(subject.outputs)
        }


def allowed(subject: Subject, output: str, dtype: Any, rivals: dict[str, np.ndarray]) -> np.ndarray | float:
    """The ulps that each element of an output may miss the truth by."""
    own = [e.ulps for e in EXCEPTIONS if (e.op, e.output) == (subject.op, output) and np.dtype(dtype).name in e.dtypes]
    bar = max([subject.bars.get(output, 8), *own])
    if output in subject.moved:
        inputs, truths = in_float64(subject, dtype)
        truth = np.abs(truths[subject.outputs.index(output)])
        with np.errstate(all="ignore"):
            share = subject.moved[output](*inputs) / np.maximum(truth, np.finfo(np.float64).tiny)
            bar = bar * (1 + np.where(np.isfinite(truth), share, 0))
    return np.maximum(bar, 2 * np.min(list(rivals.values()), axis=0)) if rivals else bar


def assert_precise(subject: Subject, dtype: Any) -> None:
    """Each element of each output within what is allowed."""
    for output, of in errors(subject, dtype).items():
        ours = of.pop("handgrad")
        most = np.broadcast_to(allowed(subject, output, dtype, of), ours.shape)
        wrong = ~(ours <= most)
        if wrong.any():
            k = int(np.argmax(np.where(wrong, ours, -1)))
            example = k // max(1, ours[0].size)
            at = [np.asarray(a[example], np.float64).tolist() for a in subject.inputs(dtype)]
            raise AssertionError(
                f"{subject} in {np.dtype(dtype).name}: {output} misses by {ours.ravel()[k]:.3g} ulps at {at}, "
                f"where {most.ravel()[k]:.3g} are allowed; {wrong.sum()} of {wrong.size} miss"
            )


every_dtype = pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])


def over_the_whole_range(subjects: list[Subject]) -> Callable[..., None]:
    """A test of each subject in float32 and in bfloat16."""

    @every_dtype
    @pytest.mark.parametrize("subject", subjects, ids=str)
    def test(subject, dtype):
        assert_precise(subject, dtype)

    return test
