"""What a model costs on data that it isn't trained on, and when to stop for it."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from handgrad.backprop import same_batch
from handgrad.checks import InputError, check_count, describe
from handgrad.layers import Layer, Loss, Sequences

Metrics = dict[str, float]
Evaluate = Callable[[PyTree], Mapping[str, Array | float]]
OfExample = Callable[[PyTree, PyTree], Float[Array, " batch"]]  # (prediction, target) -> a number for each example
Pair = tuple[PyTree, PyTree]


class EarlyStopping(NamedTuple):
    """Stop after `patience` epochs in which a metric didn't improve.

    Attributes:
      metric: one of those that `evaluate` returns, such as "test_loss".
      patience: how many epochs in a row.
      higher_is_better: True for an accuracy.
    """

    metric: str
    patience: int
    higher_is_better: bool = False

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than the best so far; a NaN never is."""
        return value == value and (best is None or (value > best if self.higher_is_better else value < best))


def correct(
    prediction: Float[Array, "batch ... classes"], target: Int[Array, "batch ..."] | Float[Array, "batch ... classes"]
) -> Float[Array, " batch"]:
    """1 where the prediction gives the most to the target's class, else 0; of several in one example, their mean. Of
    Sequences, each example's own steps count.

    Args:
      target: labels, or one-hot rows.
    """
    if isinstance(prediction, Sequences):
        steps, target = jnp.arange(prediction.X.shape[1]), target.X if isinstance(target, Sequences) else target
        lengths = jnp.full(len(target), len(steps)) if prediction.lengths is None else prediction.lengths
        hits = jnp.argmax(prediction.X, axis=-1) == target
        return jnp.sum(hits & (steps[None] < lengths[:, None]), axis=1) / lengths
    labels = target if target.ndim < prediction.ndim else jnp.argmax(target, axis=-1)
    hits = jnp.argmax(prediction, axis=-1) == labels
    return jnp.mean(hits.reshape(len(hits), -1), axis=-1)


def evaluation(
    model: Layer,
    loss: Loss,
    data: Mapping[str, Pair],
    metrics: Mapping[str, OfExample] | None = None,
    *,
    batch_size: int = 256,
) -> Callable[[PyTree], Metrics]:
    """The mean loss, and the mean of each metric, over whole sets of data, a batch at a time, without noise.

    Args:
      data: (x, target) in memory, by name: {"test": (x, target)}.
      metrics: functions of (prediction, target), by name: {"accuracy": correct}. Each returns one number for each
        example, and not their mean: the last batch is filled up, and a mean of batches is none of the examples.
      batch_size: how many examples are in memory at once; it changes nothing else, unless the model couples them.
    Returns:
      params -> {"<data>_loss", "<data>_<metric>"}, for `fit`'s evaluate.
    Raises:
      InputError: batch_size below 1; data that isn't a dict of pairs; an empty set; x and target with different
        numbers of examples; when called, a metric that isn't one number for each example.
    """
    check_count("evaluation", "batch_size", batch_size)
    _check_data(data)
    sizes = {name: same_batch("evaluation", *pair) for name, pair in data.items()}
    for name, examples in sizes.items():
        if examples == 0:
            raise InputError(f"evaluation: {name} must have at least one example, got none")
    arrays = {name: jax.tree.map(jnp.asarray, pair) for name, pair in data.items()}
    of_example = {"loss": None, **(metrics or {})}

    @jax.jit
    def means(params: PyTree, pair: Pair) -> dict[str, Array]:
        examples = same_batch("evaluation", *pair)
        size = min(batch_size, examples)

        def of_batch(total: dict[str, Array], start: Array):
            places = start + jnp.arange(size)
            x, target = jax.tree.map(lambda leaf: leaf[places % examples], pair)
            prediction, _ = model.forward(params, x)
            for name, function in of_example.items():
                values = loss.forward(prediction, target)[0] if function is None else function(prediction, target)
                _check_values(name, values, size)
                total[name] += jnp.sum(jnp.where(places < examples, values, 0))
            return total, None

        zeros = {name: jnp.zeros(()) for name in of_example}
        totals, _ = jax.lax.scan(of_batch, zeros, jnp.arange(0, examples, size))
        return {name: total / examples for name, total in totals.items()}

    def evaluate(params: PyTree) -> Metrics:
        of_sets = {name: means(params, pair) for name, pair in arrays.items()}
        return {f"{name}_{metric}": float(value) for name, found in of_sets.items() for metric, value in found.items()}

    return evaluate


def _check_data(data: object) -> None:
    """A mapping of names to pairs."""
    expected = "evaluation: data must be a dict of sets of data by name, {'test': (x, target)}, got"
    if not isinstance(data, Mapping):
        raise InputError(f"{expected} {describe(data)}")
    for name, pair in data.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(f"{expected} {describe(pair)} for {name!r}")


def _check_values(metric: str, values: object, size: int) -> None:
    """One number for each example: a mean or a sum would be weighted wrongly, and padding would count."""
    if getattr(values, "shape", None) != (size,):
        raise InputError(
            f"evaluation: metric {metric!r} must return one number for each of the {size} examples of a batch, "
            f"shape ({size},), got {describe(values)}"
        )


def split(data: Pair, fraction: float, key: PRNGKeyArray) -> tuple[Pair, Pair]:
    """Two parts of the examples, drawn at random: all others, and `fraction` of them (for validation).

    Raises:
      InputError: `fraction` isn't between 0 and 1, or leaves one part empty.
    """
    examples = same_batch("split", *data)
    held = round(examples * fraction) if 0 < fraction < 1 else 0
    if not 0 < held < examples:
        raise InputError(f"split: fraction must leave both parts at least one of {examples} examples, got {fraction}")
    order = np.asarray(jax.random.permutation(key, examples))
    first, second = (jax.tree.map(lambda leaf: leaf[part], data) for part in (order[held:], order[:held]))  # noqa: B023
    return first, second
