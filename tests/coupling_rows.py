"""Every layer and loss, with inputs of five examples: the rows of test_coupling."""

import jax.numpy as jnp
import numpy as np
from whole_models import LOSS

import handgrad as hg
from handgrad import layers

RNG = np.random.default_rng(0)
ROWS, STEPS, PLANE = (RNG.standard_normal((5, *shape)) for shape in ((4,), (3, 4), (6, 6, 4)))
MATRICES = np.einsum("bij,bkj->bik", (halves := RNG.standard_normal((5, 3, 3))), halves) + np.eye(3)
OTHER = np.roll(MATRICES, 1, axis=0)
IDS, LABELS = RNG.integers(0, 3, (5, 3)), RNG.integers(0, 3, 5)
CHANCES = np.exp(ROWS) / np.exp(ROWS).sum(1, keepdims=True)
OTHERS = np.roll(ROWS, 1, axis=0)
PAIR, SYSTEM = (ROWS, ROWS[:, 0]), (MATRICES, RNG.standard_normal((5, 3, 2)))
NODES = np.random.default_rng(2).standard_normal((5, 3, 3, 4))
TRANSITIONS = tuple(np.random.default_rng(3).standard_normal(n * (4,)) for n in (2, 1, 1))
PROGRAM = layers.QuadraticProgram(MATRICES, *(ROWS[:, :3], MATRICES[:, :1], ROWS[:, :1]), MATRICES[:, 1:], ROWS[:, 2:])
TEXT = layers.Sequences(STEPS, np.array([3, 1, 2, 3, 2]))

PADDED = layers.Sequences(IDS, TEXT.lengths)
ATTENTION = layers.multi_head_attention(2)
LATENT = layers.multi_head_latent_attention(2, kv_rank=3, head_size=2, rotary_size=2)

LINEAR, HALF = hg.linear(4), hg.linear(2)
MEETING, HALF_MEETING = hg.chain(LINEAR, layers.batch_norm()), hg.chain(HALF, layers.batch_norm())
BOTH, BOTH_MEETING = (hg.chain(hg.branches(one, LINEAR), hg.added()) for one in (LINEAR, MEETING))


def experts(expert=LINEAR, **options):
    return layers.mixture_of_experts(expert, 3, k=1, **options)


TABLE = {
    **{name: (getattr(layers, name)(), ROWS) for name in ("elu", "gelu", "identity", "leaky_relu", "log_softmax")},
    **{name: (getattr(layers, name)(), STEPS) for name in ("logsumexp", "mish", "relu", "selu", "sigmoid", "silu")},
    **{name: (getattr(layers, name)(), ROWS) for name in ("softmax", "softplus", "tanh", "geglu", "glu", "swiglu")},
    **{name: (getattr(layers, name)(), STEPS) for name in ("hard_sigmoid", "hard_swish", "prelu", "squared_relu")},
    **{name: (getattr(layers, name)(), MATRICES) for name in ("cholesky", "determinant", "frobenius_norm", "inverse")},
    **{name: (getattr(layers, name)(), MATRICES) for name in ("log_determinant", "matrix_exponential", "nuclear_norm")},
    **{name: (getattr(layers, name)(), MATRICES) for name in ("qr", "svd", "symmetric_eigen", "trace")},
    **{name: (getattr(layers, name)(), SYSTEM) for name in ("positive_definite_solve", "solve", "triangular_solve")},
    **{name: (getattr(layers, name)(), PLANE) for name in ("flatten", "global_average_pool", "global_max_pool")},
    "average_pool": (layers.average_pool(2), PLANE),
    "pixel_shuffle": (layers.pixel_shuffle(2), PLANE),
    "pixel_unshuffle": (layers.pixel_unshuffle(2), PLANE),
    "adaptive_average_pool": (layers.adaptive_average_pool(4), PLANE),
    "adaptive_max_pool": (layers.adaptive_max_pool(4), PLANE),
    "grid_sample": (layers.grid_sample(), (PLANE, np.tanh(PLANE[:, :4, :, :2]))),
    "resize": (layers.resize((4, 9)), PLANE),
    "pad": (layers.pad(1, mode="reflect"), PLANE),
    "max_pool": (layers.max_pool(2), PLANE),
    "convolution": (hg.convolution(3, 3), PLANE),
    "transposed_convolution": (layers.transposed_convolution(3, 3, strides=2), PLANE),
    "layer_norm": (layers.layer_norm(), ROWS),
    "rms_norm": (layers.rms_norm(), STEPS),
    "group_norm": (layers.group_norm(2), PLANE),
    "instance_norm": (layers.instance_norm(), PLANE),
    "batch_norm": (layers.batch_norm(), ROWS),
    "batch_norm of images, without parameters": (layers.batch_norm(scale=False, shift=False), PLANE),
    "batch_norm_inference": (layers.batch_norm_inference(jnp.full(4, 0.1), jnp.full(4, 2.0)), ROWS),
    "local_response_norm": (layers.local_response_norm(3), STEPS),
    "spectral_norm": (layers.spectral_norm(LINEAR), ROWS),
    "weight_norm": (layers.weight_norm(LINEAR), ROWS),
    "linear": (LINEAR, ROWS),
    "lora_linear": (layers.lora_linear(3, rank=2), STEPS),
    "projection": (layers.projection(7), ROWS),
    "einsum": (layers.einsum("b...i,io->b...o", (4, 3)), STEPS),
    "embedding": (hg.embedding(4, 3), IDS),
    "position_embedding": (layers.position_embedding(6), STEPS),
    "tied_head": (layers.tied_head(6), STEPS),
    "tied_projection": (layers.tied_projection(6), STEPS),
    "tied_embedding": (layers.tied_embedding(6, 4, LINEAR), IDS),
    "tied_embedding, body coupled": (layers.tied_embedding(6, 4, MEETING), IDS),
    "dropout": (layers.dropout(0.5), ROWS),
    "gated_mlp": (layers.gated_mlp(6), STEPS),
    "multi_head_attention": (layers.multi_head_attention(2, causal=True, rotary=100.0, relative=2), STEPS),
    "multi_head_attention in tiles": (layers.multi_head_attention(2, tile=2, dropout=0.0), STEPS),
    "multi_head_latent_attention": (
        layers.multi_head_latent_attention(2, kv_rank=3, head_size=2, rotary_size=2),
        STEPS,
    ),
    "told": (layers.told(ATTENTION, np.arange(15).reshape(5, 1, 1, 3) % 4 > 0), STEPS),
    "padded": (layers.padded(lambda mask, _: hg.chain(hg.embedding(4, 4), layers.told(ATTENTION, mask))), PADDED),
    "linear_recurrence": (layers.linear_recurrence(), STEPS),
    "linear_attention": (layers.linear_attention(2, chunk=2), STEPS),
    "retention": (layers.retention(2, chunk=2), STEPS),
    "gated_linear_attention": (layers.gated_linear_attention(2, rank=2), STEPS),
    "rwkv_time_mixing": (layers.rwkv_time_mixing(2, rank=2), STEPS),
    "token_shift": (layers.token_shift(), STEPS),
    **{f"cumulative_{name}": (getattr(layers, f"cumulative_{name}")(axis=1), STEPS) for name in ("sum", "product")},
    **{f"cumulative_{name}": (getattr(layers, f"cumulative_{name}")(), ROWS) for name in ("max", "logsumexp")},
    "sort": (layers.sort(axis=1, descending=True), STEPS),
    "top_k": (layers.top_k(2), STEPS),
    "gather": (layers.gather(), (ROWS, IDS)),
    "scatter_add": (layers.scatter_add(), (ROWS, IDS, STEPS[..., 0])),
    "segment_reduce": (layers.segment_reduce(3), (STEPS, IDS)),
    "delta_net": (layers.delta_net(2, gated=True), STEPS),
    "mamba": (layers.mamba(states=2), STEPS),
    "mamba2": (layers.mamba2(4, states=2, groups=2), STEPS),
    "rnn": (layers.rnn(3), TEXT),
    "lstm": (layers.lstm(3, returns="last"), TEXT),
    "gru": (layers.gru(3, returns="both"), TEXT),
    "bidirectional": (layers.bidirectional(layers.lstm(3), layers.lstm(3, reverse=True)), TEXT),
    "bidirectional, one coupled": (layers.bidirectional(LINEAR, MEETING), STEPS),
    "stacked": (layers.stacked(layers.rnn(3), layers.rnn(2)), TEXT),
    "stacked, first coupled": (layers.stacked(MEETING, layers.rnn(2)), STEPS),
    "each_step": (layers.each_step(LINEAR), TEXT),
    "each_step, coupled": (layers.each_step(MEETING), TEXT),
    "begin_auxiliary": (layers.begin_auxiliary(), ROWS),
    "carry_auxiliary": (layers.carry_auxiliary(LINEAR, skip=True), PAIR),
    "carry_auxiliary, coupled": (layers.carry_auxiliary(experts(balance=True, counts="batch")), PAIR),
    "mixture_of_experts": (experts(), ROWS),
    "mixture_of_experts, balanced in each example": (experts(balance=True), STEPS),
    "mixture_of_experts, balanced in the batch": (experts(balance=True, counts="batch"), STEPS),
    "mixture_of_experts, batch counts unused": (experts(counts="batch"), STEPS),
    "mixture_of_experts, expert coupled": (experts(MEETING), ROWS),
    "chain": (hg.chain(LINEAR, hg.tanh()), ROWS),
    "chain, coupled deep inside": (hg.chain(a=LINEAR, b=hg.chain(hg.chain(MEETING)), c=LINEAR), ROWS),
    "residual": (hg.residual(LINEAR), ROWS),
    "shared": (hg.shared(hg.chain(LINEAR, LINEAR), {"1": "0"}), ROWS),
    "shared, coupled": (hg.shared(hg.chain(LINEAR, MEETING, LINEAR), {"2": "0"}), ROWS),
    "branches": (hg.branches(LINEAR, LINEAR), (ROWS, STEPS)),
    "branches, one coupled": (hg.branches(MEETING, LINEAR), (ROWS, STEPS)),
    "residual, coupled": (hg.residual(MEETING), ROWS),
    "residual, shortcut coupled": (hg.residual(LINEAR, MEETING), ROWS),
    "recomputed": (hg.recomputed(LINEAR), ROWS),
    "repeat": (hg.repeat(hg.chain(LINEAR, hg.relu()), 2), ROWS),
    "repeat, coupled": (hg.repeat(MEETING, 2, residuals="recompute"), ROWS),
    "reversible": (layers.reversible(HALF, HALF), ROWS),
    "reversible, coupled": (layers.reversible(HALF_MEETING, HALF), ROWS),
    "reversible, coupled and saved": (layers.reversible(HALF, HALF_MEETING, residuals="save"), ROWS),
    "reversible_sequence": (layers.reversible_sequence(HALF, HALF, 2), ROWS),
    "reversible_sequence, coupled": (layers.reversible_sequence(HALF, HALF_MEETING, 2), ROWS),
    "added": (layers.added(), (ROWS, OTHERS)),
    "fixed_point": (layers.fixed_point(hg.chain(BOTH, hg.tanh())), ROWS),
    "fixed_point, coupled": (layers.fixed_point(hg.chain(BOTH_MEETING, hg.tanh()), history=0, iterations=3), ROWS),
    "root": (layers.root(BOTH), ROWS),
    "ode": (layers.ode(hg.chain(LINEAR, hg.tanh()), steps=5, returns="all"), ROWS),
    "ode by its adjoint": (layers.ode(hg.chain(BOTH, hg.tanh()), steps=2, time=True, gradient="adjoint"), ROWS),
    "ode, coupled": (layers.ode(MEETING, steps=1), ROWS),
    "gumbel_softmax": (layers.gumbel_softmax(), ROWS),
    "straight_through_round": (layers.straight_through_round(), STEPS),
    "straight_through_sign": (layers.straight_through_sign(), STEPS),
    "vector_quantize": (layers.vector_quantize(3), STEPS),
    "lsq_quantize": (layers.lsq_quantize(4), STEPS),
    **{name: (getattr(layers, name)(), MATRICES) for name in ("matrix_logarithm", "matrix_square_root")},
    "pseudo_inverse": (layers.pseudo_inverse(), MATRICES),
    "symmetric_function": (layers.symmetric_function("exp"), MATRICES),
    **{name: (getattr(layers, name)(), (MATRICES, OTHER)) for name in ("lyapunov", "discrete_lyapunov")},
    "sylvester": (layers.sylvester(), (MATRICES, MATRICES, OTHER)),
    "least_squares": (layers.least_squares(), SYSTEM),
    "low_rank_solve": (layers.low_rank_solve(), (ROWS**2 + 1, *3 * (PLANE[:, 0, :4, :2],))),
    "low_rank_log_determinant": (layers.low_rank_log_determinant(), (ROWS**2 + 1, *2 * (PLANE[:, 0, :4, :2],))),
    "group_advantages": (layers.group_advantages(), ROWS),
    "quadratic_program": (layers.quadratic_program(), PROGRAM),
    **{name: (getattr(layers, name)(), ROWS, RNG.standard_normal((5, 4))) for name in ("squared_error", "l2_loss")},
    **{name: (getattr(layers, name)(), ROWS, RNG.standard_normal((5, 4))) for name in ("absolute_error", "huber_loss")},
    **{name: (getattr(layers, name)(), ROWS, CHANCES) for name in ("sigmoid_cross_entropy", "focal_loss")},
    "binary_cross_entropy": (layers.binary_cross_entropy(), CHANCES, np.roll(CHANCES, 1, axis=0)),
    "hinge_loss": (layers.hinge_loss(), ROWS, np.sign(OTHERS)),
    "kl_divergence": (layers.kl_divergence(), np.log(CHANCES), np.roll(CHANCES, 1, axis=0)),
    "poisson_loss": (layers.poisson_loss(), ROWS, np.abs(OTHERS)),
    "cosine_distance": (layers.cosine_distance(), ROWS, OTHERS),
    "info_nce": (layers.info_nce(), ROWS, OTHERS),
    "info_nce, not normalized": (layers.info_nce(1.0, normalize=False, residuals="recompute"), ROWS, OTHERS),
    "softmax_cross_entropy": (layers.softmax_cross_entropy(), ROWS, LABELS),
    "softmax_cross_entropy of weighted tokens": (
        layers.softmax_cross_entropy(0.1, class_weights=jnp.arange(1.0, 5), ignore_index=1, z_loss=0.1),
        STEPS,
        IDS,
    ),
    "linear_cross_entropy": (
        layers.linear_cross_entropy(chunk=2, ignore_index=1),
        layers.Projection(STEPS, RNG.standard_normal((4, 7))),
        IDS,
    ),
    **{name: (getattr(layers, name)(), STEPS[:, :2], STEPS[:, 1:]) for name in ("dpo_loss", "ipo_loss")},
    "ppo_loss": (layers.ppo_loss(), STEPS, layers.PolicyTarget(STEPS + 0.1, ROWS[:, :3])),
    "grpo_loss": (layers.grpo_loss(), STEPS, layers.PolicyTarget(STEPS + 0.1, ROWS[:, :3], STEPS - 0.1)),
    "ppo_value_loss": (layers.ppo_value_loss(), ROWS, layers.ValueTarget(ROWS + 0.1, OTHERS)),
    "reinforce_loss": (layers.reinforce_loss(), ROWS, layers.ReturnsTarget(OTHERS)),
    "linear_log_probability": (
        layers.linear_log_probability(layers.reinforce_loss(), chunk=2),
        layers.Projection(STEPS, RNG.standard_normal((4, 7))),
        layers.LogProbabilityTarget(IDS, layers.ReturnsTarget(ROWS[:, :3])),
    ),
    "dice_loss": (layers.dice_loss(), CHANCES, np.roll(CHANCES, 1, axis=0)),
    "gaussian_nll": (layers.gaussian_nll(), (ROWS, OTHERS**2 + 1), OTHERS),
    "triplet_loss": (layers.triplet_loss(), STEPS, LABELS),
    "margin_ranking_loss": (layers.margin_ranking_loss(1.0), STEPS[:, :2], np.sign(OTHERS)),
    "wasserstein_distance": (layers.wasserstein_distance(), ROWS, OTHERS),
    "ctc_loss": (layers.ctc_loss(), STEPS, layers.CtcTarget(np.maximum(IDS, 1)[:, :2], TEXT.lengths, LABELS // 2 + 1)),
    "transducer_loss": (
        layers.transducer_loss(),
        NODES,
        layers.TransducerTarget(IDS[:, :2] % 2 + 1, LABELS + 1, LABELS % 3),
    ),
    "crf": (layers.crf(), layers.Sequences(STEPS, TEXT.lengths)),
    "crf_loss": (layers.crf_loss(), layers.CrfScores(STEPS, *TRANSITIONS, TEXT.lengths), IDS),
    "sinkhorn": (layers.sinkhorn(epsilon=0.5, iterations=3), STEPS, layers.TransportTarget()),
    "add_auxiliary": (layers.add_auxiliary(LOSS, 0.1), PAIR, LABELS),
    "add_auxiliary, coupled": (layers.add_auxiliary(layers.info_nce(), 0.1), PAIR, OTHERS),
}
