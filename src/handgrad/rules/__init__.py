"""The mathematics: every operation as two pure functions, `<op>_forward` and `<op>_backward`, and `<op>`, their Rule.

One family, one folder; one idea, one file; one rule, one screen. What holds for every rule is said here, and docstrings
say only what is special:

- `<op>_forward(*arrays, **options) -> (Y, residuals)`. Axis 0 is the example, the last axis the features. The result
  has the dtype that JAX promotes the arrays to; statistics and sums run in at least float32.
- `<Op>Residuals` is a NamedTuple of arrays: what the backward pass needs. `residuals="recompute"` keeps less of it and
  computes the rest again (rematerialization).
- `<op>_backward(residuals, dY, **options)` takes the residuals of its own forward pass, a cotangent dY of Y's shape and
  dtype, and the same options, except `residuals`. It returns a tuple, one cotangent for each array argument, in order
  and of that argument's shape: a factor for a parameter, None for an integer or a random key, an array for the rest.
- InputError, at trace time: an array whose shape or dtype doesn't fit, a wrong option, residuals of another rule, a
  cotangent that isn't Y's. The message names the function, the argument, what was expected and what it got.
- Calling the Rule runs the forward pass, in any JAX program; its gradient is the backward pass, factors multiplied out.
"""

from handgrad.rule import *
from handgrad.rules.activations.dropout import *
from handgrad.rules.activations.gated_units import *
from handgrad.rules.activations.gumbel_softmax import *
from handgrad.rules.activations.piecewise import *
from handgrad.rules.activations.rectifiers import *
from handgrad.rules.activations.self_gated import *
from handgrad.rules.activations.smooth import *
from handgrad.rules.activations.softmax import *
from handgrad.rules.activations.straight_through import *
from handgrad.rules.attention.attention import *
from handgrad.rules.attention.relative_position import *
from handgrad.rules.attention.rotary import *
from handgrad.rules.attention.tiled_attention import *
from handgrad.rules.images.adaptive_pooling import *
from handgrad.rules.images.convolution import *
from handgrad.rules.images.flatten import *
from handgrad.rules.images.global_pooling import *
from handgrad.rules.images.grid_sample import *
from handgrad.rules.images.padding import *
from handgrad.rules.images.pixel_shuffle import *
from handgrad.rules.images.pooling import *
from handgrad.rules.images.resize import *
from handgrad.rules.images.transposed_convolution import *
from handgrad.rules.linear.einsum import *
from handgrad.rules.linear.linear import *
from handgrad.rules.linear.lora import *
from handgrad.rules.linear_algebra.decompositions import *
from handgrad.rules.linear_algebra.exponential import *
from handgrad.rules.linear_algebra.least_squares import *
from handgrad.rules.linear_algebra.low_rank import *
from handgrad.rules.linear_algebra.norms import *
from handgrad.rules.linear_algebra.quadratic_program import *
from handgrad.rules.linear_algebra.root_and_logarithm import *
from handgrad.rules.linear_algebra.scalars import *
from handgrad.rules.linear_algebra.solve import *
from handgrad.rules.linear_algebra.spectra import *
from handgrad.rules.linear_algebra.sylvester import *
from handgrad.rules.linear_algebra.symmetric_functions import *
from handgrad.rules.losses.binary import *
from handgrad.rules.losses.crf import *
from handgrad.rules.losses.ctc import *
from handgrad.rules.losses.curvature import *
from handgrad.rules.losses.divergences import *
from handgrad.rules.losses.linear_cross_entropy import *
from handgrad.rules.losses.linear_log_probability import *
from handgrad.rules.losses.margins import *
from handgrad.rules.losses.overlap import *
from handgrad.rules.losses.policies import *
from handgrad.rules.losses.preferences import *
from handgrad.rules.losses.regression import *
from handgrad.rules.losses.reinforce import *
from handgrad.rules.losses.similarity import *
from handgrad.rules.losses.sinkhorn import *
from handgrad.rules.losses.softmax_cross_entropy import *
from handgrad.rules.losses.transducer import *
from handgrad.rules.losses.value import *
from handgrad.rules.losses.wasserstein import *
from handgrad.rules.nielsen.equations import *
from handgrad.rules.normalization.batch_norm import *
from handgrad.rules.normalization.group_norm import *
from handgrad.rules.normalization.layer_norm import *
from handgrad.rules.normalization.local_response_norm import *
from handgrad.rules.normalization.rms_norm import *
from handgrad.rules.normalization.spectral_norm import *
from handgrad.rules.normalization.weight_norm import *
from handgrad.rules.sequences.cumulative import *
from handgrad.rules.sequences.delta_rule import *
from handgrad.rules.sequences.embedding import *
from handgrad.rules.sequences.gru import *
from handgrad.rules.sequences.linear_attention import *
from handgrad.rules.sequences.linear_recurrence import *
from handgrad.rules.sequences.lstm import *
from handgrad.rules.sequences.rnn import *
from handgrad.rules.sequences.segments import *
from handgrad.rules.sequences.selection import *
from handgrad.rules.sequences.selective_scan import *
from handgrad.rules.sequences.state_space_duality import *
from handgrad.rules.sequences.token_shift import *
from handgrad.rules.structure.fixed_point import *
from handgrad.rules.structure.mixture_of_experts import *
from handgrad.rules.structure.ode import *
from handgrad.rules.structure.quantization import *
from handgrad.rules.structure.reversible import *
from handgrad.rules.structure.root import *
