"""How much of what fine-tuning gains do adapters of a small rank gain, with all other weights frozen?

char_gpt's weights go on to another text, JAX's own sources by default: adapters (LoRA) beside every weight of the
blocks are all that is trained; or, for comparison, everything is.

    python experiments/char_gpt.py
    python experiments/finetune_lora.py
    python experiments/finetune_lora.py --rank None --learning-rate 3e-4 --out runs/finetune_all
    handgrad compare runs/finetune_lora runs/finetune_all
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import language
import study
import training_run
from jaxtyping import PyTree

from handgrad.checks import InputError
from handgrad.layers import LinearParams, LoraParams, is_adapter, merge_lora
from handgrad.models import GPT2_STATE, Gpt2Config, gpt2, load, save

SIZES = ("tokens", "layers", "width", "heads")


@dataclass(frozen=True)
class FinetuneLora(language.Training):
    """Fine-tune a GPT-2 on text, byte by byte, by adapters alone."""

    base: Path = Path("runs/char_gpt")
    """A folder of char_gpt, or a safetensors file of a GPT-2 in bytes."""
    layers: int = 4
    """Blocks; as tokens, width and heads read from the folder if it is one."""
    width: int = 128
    """Features of a byte."""
    heads: int = 4
    """Attention heads of a block."""
    rank: int | None = 8
    """Of the adapters; None trains all weights instead."""
    text: Path | None = None
    """A file or a folder to read; JAX's own sources without it."""
    epochs: int = 4
    """How often to stop for a line of metrics."""
    out: Path = Path("runs/finetune_lora")
    """The run's folder; a run with the same options is resumed."""


def run(options: FinetuneLora, progress: bool = True) -> dict[str, Any]:
    """Fine-tune; the figures, among them the cost before. The weights, adapters merged, go to model.safetensors."""
    options = dataclasses.replace(with_sizes(options), text=options.text or Path(jax.__file__).parent)
    rank = ("rank",) if options.rank is not None else ()
    corpus = language.begin("finetune_lora", options, "layers", "width", "heads", *rank)
    if not options.base.exists():
        raise InputError(f"finetune_lora: base must be a folder of char_gpt or a safetensors file, got {options.base}")
    config = Gpt2Config(language.BYTES, options.tokens, options.width, options.layers, options.heads)
    model = gpt2(dataclasses.replace(config, lora_rank=options.rank))
    what = "all weights" if options.rank is None else f"adapters of rank {options.rank}"
    with training_run.on_device(options.device):
        key, ids = jax.random.key(options.seed), corpus.train[0][:1]
        loaded = load(GPT2_STATE, jax.eval_shape(gpt2(config).init, key, ids), options.base)
        params = beside(loaded, jax.jit(model.init)(key, ids))
        learned = None if options.rank is None else is_adapter
        subject = language.Subject(f"GPT-2 in bytes, fine-tuned: {what}", model, params, learned)
        figures = language.run(subject, corpus, options, progress)
    if not options.compare:
        save(GPT2_STATE, merged(figures["params"]), options.out / "model.safetensors")
    return figures


def with_sizes(options: FinetuneLora) -> FinetuneLora:
    """The options with the sizes of the network in a run's folder."""
    config = options.base / "config.json"
    if not config.is_file():
        return options
    known = json.loads(config.read_text())
    return dataclasses.replace(options, **{name: known[name] for name in SIZES})


def beside(loaded: PyTree, adapted: PyTree) -> PyTree:
    """The loaded parameters, with the adapters of `adapted` where it has some."""

    def with_adapters(node: PyTree, own: PyTree) -> PyTree:
        return LoraParams(node.W, own.A, own.B, node.b) if isinstance(own, LoraParams) else node

    return jax.tree.map(with_adapters, loaded, adapted, is_leaf=lambda node: isinstance(node, LinearParams))


def merged(params: PyTree) -> PyTree:
    """The parameters with each adapter added to its weight."""

    def plain(node: PyTree) -> PyTree:
        return jax.vmap(merge_lora)(node) if isinstance(node, LoraParams) else node  # one for each block

    return jax.tree.map(plain, params, is_leaf=lambda node: isinstance(node, LoraParams))


if __name__ == "__main__":
    study.main(run, FinetuneLora)
