"""Single rules over their sizes: the result, and the cotangents of what is differentiable."""

from typing import Any

from handgrad import rules
from handgrad.cli.bench.workload import Program, Workload, integers, normal, of_rule
from handgrad.rules.attention._tiles import is_worth_tiling

IN_FLOAT32 = 1e-5  # jax.nn.dot_product_attention takes its softmax in float32, whatever the dtype


def attention(tokens: int, heads: int, width: int) -> Program:
    """Causal, of one example, in the form that multi_head_attention chooses."""
    rule = rules.tiled_attention if is_worth_tiling(tokens, tokens) else rules.attention
    Q, K, V, dY = (normal(seed, 1, tokens, heads, width) for seed in range(4))
    return of_rule(rule.with_options(causal=True), Q, K, V, dY)


def cross_entropy(rows: int, vocabulary: int) -> Program:
    """Of logits and labels."""
    arguments = 3 * normal(0, rows, vocabulary), integers(1, vocabulary, rows), normal(2, rows)
    return of_rule(rules.softmax_cross_entropy, *arguments)


def linear_cross_entropy(rows: int, width: int, vocabulary: int) -> Program:
    """Of the rows before a head, its weights, and labels; both passes in one, as `value_and_grad` runs them."""
    X, W = normal(0, rows, width), normal(1, width, vocabulary) / width**0.5
    program = of_rule(rules.linear_cross_entropy, X, W, None, integers(2, vocabulary, rows), normal(3, rows))

    def hand(*arguments: Any) -> tuple[Any, ...]:
        C, cotangents = rules.linear_cross_entropy_at_once(*arguments)
        return C, cotangents[:2]

    return program._replace(hand=hand)


def norm(kind: str, rows: int, width: int) -> Program:
    """With scale, and shift where there is one."""
    parameters = (1 + 0.1 * normal(1, width), normal(2, width))[: 2 if kind == "layer_norm" else 1]
    return of_rule(getattr(rules, kind), normal(0, rows, width), *parameters, normal(3, rows, width))


def activation(kind: str, rows: int, width: int) -> Program:
    """Element by element or row by row."""
    return of_rule(getattr(rules, kind), normal(0, rows, width), normal(1, rows, width))


def convolution(
    channels: int, size: int, batch: int, window: int, strides: int = 1, groups: int = 1, transposed: bool = False
) -> Program:
    """As many channels out as in."""
    rule = rules.transposed_convolution if transposed else rules.convolution
    K = normal(1, window, window, channels // groups, channels) / (window * channels**0.5)
    side = size * strides if transposed else size // strides
    X, b, dY = normal(0, batch, size, size, channels), normal(2, channels), normal(3, batch, side, side, channels)
    return of_rule(rule.with_options(strides=strides, groups=groups), X, K, b, dY)


def linear_recurrence(time: int, batch: int, width: int) -> Program:
    """h_t = a_t ∘ h_{t−1} + b_t."""
    shape = batch, time, width
    A = 1 / (1 + 2.0 ** -normal(0, *shape))
    return of_rule(rules.linear_recurrence, A, normal(1, *shape), normal(2, *shape))


def _attention(tokens: int) -> Workload:
    sizes, tiny = {"tokens": tokens, "heads": 4, "width": 64}, {"tokens": 8, "heads": 2, "width": 3}
    baselines = ("attention", "attention_torch")
    name = f"attention-causal-{tokens}"
    return Workload(name, attention, sizes, tiny, baselines, IN_FLOAT32, trade=None, heavy=tokens > 2048)


def _convolution(name: str, channels: int, window: int, **options: Any) -> Workload:
    sizes = {"channels": channels, "size": 16 if channels > 64 else 32, "batch": 8, "window": window, **options}
    tiny = {"channels": 4, "size": 6, "batch": 2} | ({"groups": 4} if "groups" in options else {})
    return Workload(f"conv-{name}-{channels}", convolution, sizes, tiny, ("convolution", "convolution_torch"))


def _linear_cross_entropy(width: int, vocabulary: int) -> Workload:
    name = f"linear-cross-entropy-{width}x{vocabulary // 1000}k"
    sizes = {"rows": 2048, "width": width, "vocabulary": vocabulary}
    tiny = {"rows": 8, "width": 3, "vocabulary": 5}
    return Workload(name, linear_cross_entropy, sizes, tiny, ("linear_cross_entropy",), trade=True)


WORKLOADS = (
    *(_attention(tokens) for tokens in (256, 512, 1024, 2048, 4096, 8192)),
    *(
        Workload(
            f"cross-entropy-{vocabulary // 1000}k",
            cross_entropy,
            {"rows": 128, "vocabulary": vocabulary},
            {"rows": 3, "vocabulary": 5},
            ("cross_entropy", "cross_entropy_torch"),
        )
        for vocabulary in (8192, 32768, 131072)
    ),
    *(_linear_cross_entropy(*sizes) for sizes in ((64, 8192), (768, 8192), (256, 50257))),
    *(
        Workload(
            f"{kind.replace('_', '-')}-{width}",
            norm,
            {"kind": kind, "rows": 1024, "width": width},
            {"rows": 3, "width": 4},
            ("norm", "norm_torch"),
        )
        for kind in ("layer_norm", "rms_norm")
        for width in (256, 1024, 4096)
    ),
    *(
        Workload(
            f"{kind.replace('_', '-')}-1024x1024",
            activation,
            {"kind": kind, "rows": 1024, "width": 1024},
            {"rows": 3, "width": 4},
            ("activation", "activation_torch"),
        )
        for kind in ("relu", "gelu", "silu", "softplus", "softmax", "log_softmax")
    ),
    *(_convolution("3x3", channels, 3) for channels in (1, 16, 64, 256)),
    *(_convolution("1x1", channels, 1) for channels in (16, 64, 256)),
    *(_convolution("depthwise-3x3", channels, 3, groups=channels) for channels in (16, 64, 256)),
    *(_convolution("strided-3x3", channels, 3, strides=2) for channels in (1, 16, 64, 256)),
    *(_convolution("transposed-3x3", channels, 3, strides=2, transposed=True) for channels in (1, 16, 64, 256)),
    *(
        Workload(
            f"linear-recurrence-{time}",
            linear_recurrence,
            {"time": time, "batch": 8, "width": 128},
            {"time": 5, "batch": 2, "width": 3},
            ("linear_recurrence",),
        )
        for time in (128, 1024)
    ),
)
