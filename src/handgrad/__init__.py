"""Backpropagation by hand, in matrix form, on JAX: checked against autodiff, and ahead of it where structure allows.

import handgrad as hg
model = hg.mlp((64, 128, 10), hg.relu())
value, grads = hg.value_and_grad(model, hg.softmax_cross_entropy())(params, x, labels)

Here is what most programs need. The rest is one attribute away: `hg.rules` (every operation as a function with its
hand-written gradient), `hg.layers`, `hg.factors`, `hg.folds`, `hg.models`, `hg.training`, `hg.crosscheck`, `hg.cases`,
`hg.conformance`, `hg.explain`.
"""

import importlib
import types
import typing

from handgrad import (
    crosscheck as crosscheck,
    factors as factors,
    folds as folds,
    layers as layers,
    models as models,
    rules as rules,
)
from handgrad.backprop import (
    custom_vjp as custom_vjp,
    custom_vjp_rule as custom_vjp_rule,
    grad as grad,
    materialize as materialize,
    objective as objective,
    value_and_factors as value_and_factors,
    value_and_grad as value_and_grad,
)
from handgrad.checks import InputError as InputError
from handgrad.crosscheck import (
    CheckFailed as CheckFailed,
    Report as Report,
    check_custom_vjp as check_custom_vjp,
    check_function as check_function,
    check_layer as check_layer,
    check_model as check_model,
    check_rule as check_rule,
)
from handgrad.folds import (
    clipped_grad as clipped_grad,
    costs as costs,
    empirical_fisher_diagonal as empirical_fisher_diagonal,
    ggn_diagonal as ggn_diagonal,
    ggn_vector_product as ggn_vector_product,
    gram as gram,
    hessian_vector_product as hessian_vector_product,
    kfac_factors as kfac_factors,
    kflr_factors as kflr_factors,
    noise_scale as noise_scale,
    per_example_grads as per_example_grads,
    project as project,
    sampled_factors as sampled_factors,
    second_moment as second_moment,
    sq_norms as sq_norms,
    variance as variance,
)
from handgrad.layers import (
    CrfParams as CrfParams,
    CrfScores as CrfScores,
    CtcTarget as CtcTarget,
    Layer as Layer,
    LinearParams as LinearParams,
    LogProbabilityTarget as LogProbabilityTarget,
    Loss as Loss,
    PolicyTarget as PolicyTarget,
    ReturnsTarget as ReturnsTarget,
    Sequences as Sequences,
    Tokens as Tokens,
    TransducerTarget as TransducerTarget,
    TransportTarget as TransportTarget,
    absolute_error as absolute_error,
    adaptive_average_pool as adaptive_average_pool,
    adaptive_max_pool as adaptive_max_pool,
    added as added,
    average_pool as average_pool,
    batch_norm as batch_norm,
    bidirectional as bidirectional,
    binary_cross_entropy as binary_cross_entropy,
    branches as branches,
    chain as chain,
    convolution as convolution,
    cosine_distance as cosine_distance,
    crf as crf,
    crf_decode as crf_decode,
    crf_loss as crf_loss,
    ctc_loss as ctc_loss,
    cumulative_logsumexp as cumulative_logsumexp,
    cumulative_max as cumulative_max,
    cumulative_product as cumulative_product,
    cumulative_sum as cumulative_sum,
    delta_net as delta_net,
    dice_loss as dice_loss,
    dpo_loss as dpo_loss,
    dropout as dropout,
    each_step as each_step,
    einsum as einsum,
    elu as elu,
    embedding as embedding,
    fixed_point as fixed_point,
    flatten as flatten,
    focal_loss as focal_loss,
    from_rule as from_rule,
    gated_linear_attention as gated_linear_attention,
    gated_mlp as gated_mlp,
    gather as gather,
    gaussian_nll as gaussian_nll,
    geglu as geglu,
    gelu as gelu,
    global_average_pool as global_average_pool,
    global_max_pool as global_max_pool,
    glu as glu,
    grid_sample as grid_sample,
    group_norm as group_norm,
    grpo_loss as grpo_loss,
    gru as gru,
    gumbel_softmax as gumbel_softmax,
    hard_sigmoid as hard_sigmoid,
    hard_swish as hard_swish,
    hinge_loss as hinge_loss,
    huber_loss as huber_loss,
    identity as identity,
    info_nce as info_nce,
    instance_norm as instance_norm,
    ipo_loss as ipo_loss,
    kl_divergence as kl_divergence,
    l2_loss as l2_loss,
    layer_norm as layer_norm,
    leaky_relu as leaky_relu,
    linear as linear,
    linear_attention as linear_attention,
    linear_cross_entropy as linear_cross_entropy,
    linear_log_probability as linear_log_probability,
    linear_recurrence as linear_recurrence,
    local_response_norm as local_response_norm,
    log_softmax as log_softmax,
    logsumexp as logsumexp,
    lora_linear as lora_linear,
    loss_from_rule as loss_from_rule,
    lsq_quantize as lsq_quantize,
    lstm as lstm,
    mamba as mamba,
    mamba2 as mamba2,
    margin_ranking_loss as margin_ranking_loss,
    max_pool as max_pool,
    mish as mish,
    mixture_of_experts as mixture_of_experts,
    multi_head_attention as multi_head_attention,
    multi_head_latent_attention as multi_head_latent_attention,
    ode as ode,
    pad as pad,
    pixel_shuffle as pixel_shuffle,
    pixel_unshuffle as pixel_unshuffle,
    poisson_loss as poisson_loss,
    position_embedding as position_embedding,
    ppo_loss as ppo_loss,
    ppo_value_loss as ppo_value_loss,
    prelu as prelu,
    projection as projection,
    quadratic_program as quadratic_program,
    recomputed as recomputed,
    reinforce_loss as reinforce_loss,
    relu as relu,
    repeat as repeat,
    residual as residual,
    resize as resize,
    retention as retention,
    reversible as reversible,
    rms_norm as rms_norm,
    rnn as rnn,
    root as root,
    rwkv_time_mixing as rwkv_time_mixing,
    scatter_add as scatter_add,
    segment_reduce as segment_reduce,
    selu as selu,
    shared as shared,
    sigmoid as sigmoid,
    sigmoid_cross_entropy as sigmoid_cross_entropy,
    silu as silu,
    sinkhorn as sinkhorn,
    softmax as softmax,
    softmax_cross_entropy as softmax_cross_entropy,
    softplus as softplus,
    sort as sort,
    spectral_norm as spectral_norm,
    squared_error as squared_error,
    squared_relu as squared_relu,
    stacked as stacked,
    straight_through_round as straight_through_round,
    straight_through_sign as straight_through_sign,
    swiglu as swiglu,
    tanh as tanh,
    tied_embedding as tied_embedding,
    tied_head as tied_head,
    tied_projection as tied_projection,
    token_shift as token_shift,
    top_k as top_k,
    transducer_loss as transducer_loss,
    transposed_convolution as transposed_convolution,
    triplet_loss as triplet_loss,
    vector_quantize as vector_quantize,
    wasserstein_distance as wasserstein_distance,
    weight_norm as weight_norm,
)
from handgrad.models import check_random_networks as check_random_networks, mlp as mlp, summary as summary
from handgrad.rules import Rule as Rule

__version__ = "0.2.0"

_LATE = ("cases", "conformance", "explain", "training")  # imported when first used: optax comes with some
_ROOMS = ("crosscheck", "factors", "folds", "layers", "models", "rules", *_LATE)

if typing.TYPE_CHECKING:
    from handgrad import cases as cases, conformance as conformance, explain as explain, training as training
else:

    def __getattr__(name):
        """The rooms that are imported late."""
        if name in _LATE:
            return importlib.import_module(f"handgrad.{name}")
        raise AttributeError(f"module 'handgrad' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What most programs need, and the rooms."""
    mine = globals().items()
    names = (name for name, value in mine if not name.startswith("_") and not isinstance(value, types.ModuleType))
    return sorted({*_ROOMS, *names})
