"""Every rule with large and with small numbers: right wherever the right answer fits.

The first argument of a rule's row is scaled, to 10⁴ and 10⁻⁴ in float16 and to 10³⁰ and 10⁻³⁰ in float32. The right
answer is that of autodiff of the row's reference in float64 on the same numbers. Where that is a number of the dtype,
so is ours, and near it. Rows that miss that stand in EXCEPTIONS, with the reason.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from case_programs import by_autodiff, by_hand, drawn, is_floating
from helpers import optimized_jit

from handgrad.cases import CASES, first_rows

SIZES = {jnp.float16: (1e4, 1e-4), jnp.float32: (1e30, 1e-30)}
PROGRAMS = list({(case.op, repr(case.of_values)): case for case in reversed(CASES)}.values())[::-1]

# A rule or a row of it -> (sizes, reason)
EXCEPTIONS: dict[str, tuple[tuple[float, ...], str]] = {
    "binary_cross_entropy": ((1e4, 1e30), "no probability is that large"),
    "ctc_loss": ((1e30,), "the reference's impossible paths have 1e30 themselves"),
    "matrix_exponential": ((1e30,), "17 squarings and more give NaN, as in JAX"),
    "symmetric_function matrices f=exp": ((1e30,), "17 squarings of the reference"),
    "symmetric_function matrices f=sine": ((1e30,), "no digit is left of an angle"),
    "sylvester matrices method=sign": ((1e30,), "A's eigenvalues are 1e30 times B's, and take their digits"),
    "discrete_lyapunov": ((1e30,), "products of two of A's elements overflow"),
    "low_rank_solve": ((1e-30,), "the reference's dense matrix is singular"),
    "low_rank_log_determinant": ((1e-30,), "the reference's dense matrix is singular"),
    "triangular_solve unit lower=False unit_diagonal=True": (
        (1e30,),
        "a row of it is a small difference of products of 1e60",
    ),
    "cumulative_product": ((1e30,), "a product that overflows before a zero is ∞ · 0 there, NaN as in JAX"),
    "sinkhorn": ((1e-30,), "costs of 1e-30 are nothing beside the rounding of a sum of weights to 1"),
    "dice_loss": ((1e30,), "no probability is that large"),
    "triplet_loss": ((1e30,), "far from both, the directions of p and n are one, and dA is what rounding leaves of it"),
    "vector_quantize": ((1e30,), "the reference's squared distances don't tell codes of 1 apart"),
    "focal_loss": ((1e-30,), "the target's cotangent, of 1e-30, is a rounding in float64"),
    "tiled_attention": ((1e30,), "dP of a sure query misses the mean of dP by a rounding, and Q and K are 1e30"),
    "group_norm rows-no-scale groups=3": ((1e30,), "with few numbers in a group, dX is 0 but for rounding"),
    "rms_norm one-feature eps=0.5": ((1e30,), "with one feature, dX is 0 but for rounding"),
}

# Rules whose first row can't be right at 1e25 or 1e-25.
FAR = {
    "quadratic_program": "how far a multiplier is from 0 has no digits left",
    "low_rank_solve": "a diagonal of 1e-25 beside products of 1, as of 1e-30",
    "low_rank_log_determinant": "likewise",
    "discrete_lyapunov": "products of two of A's elements overflow",
    "matrix_exponential": "17 squarings and more",
    "sinkhorn": "costs of 1e-25 are nothing beside the rounding of a sum of weights to 1",
    "focal_loss": "the target's cotangent is a rounding in float64",
    "binary_cross_entropy": "no probability is that large",
    "vector_quantize": "the reference's squared distances don't tell codes of 1 apart",
    "triplet_loss": "far from both, the directions of p and n are one, and dA is what rounding leaves of it",
}
# Norms standardize X, gated units take the gate, in X's own dtype: parameters come after.
IN_ITS_OWN_DTYPE = {
    *("layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "batch_norm_inference", "weight_norm"),
    *("glu", "geglu", "swiglu"),
}


def scaled(arguments, size, dtype):
    """The arguments in a dtype, the first that has numbers times `size`."""
    first = next((i for i, a in enumerate(arguments) if is_floating(a)), None)
    return tuple(
        (size * a if i == first else a).astype(dtype) if is_floating(a) else a for i, a in enumerate(arguments)
    )


def wide(tree):
    return jax.tree.map(lambda a: a.astype(jnp.float64) if is_floating(a) else a, tree)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=str(case)) for case in PROGRAMS])
def test_right_where_the_answer_fits(case):
    ours, exact = optimized_jit(by_hand(case)), optimized_jit(by_autodiff(case))
    dY, *arguments = drawn(case)
    excused = [size for name in (case.op, str(case)) for size in EXCEPTIONS.get(name, ((), ""))[0]]
    for dtype, sizes in SIZES.items():
        for size in (size for size in sizes if size not in excused):
            assert_right_where_it_fits(case, ours, exact, dY, scaled(arguments, size, dtype), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(c, id=c.op) for c in first_rows().values() if c.op not in FAR])
def test_right_where_a_cotangent_is_far_from_1_too(case):
    """What one of them makes of the other's size fits again."""
    ours, exact = optimized_jit(by_hand(case)), optimized_jit(by_autodiff(case))
    dY, *arguments = drawn(case)
    for size, of_dY in ((1e-25, 1e-20), (1e-25, 1e20), (1e25, 1e-20), (1e25, 1e20)):
        far = jax.tree.map(lambda d, of_dY=of_dY: of_dY * d, dY)
        assert_right_where_it_fits(case, ours, exact, far, scaled(arguments, size, jnp.float32), jnp.float32)


def assert_right_where_it_fits(case, ours, exact, dY, given, dtype):
    """Each element that is a number of the dtype, except of a row with special numbers."""
    if any(is_floating(a) and not np.isfinite(a).all() for a in given):
        return
    Y = jax.eval_shape(lambda *a: case.settled.forward(*a)[0], *given)  # a state may be wider than tokens
    cotangent = jax.tree.map(lambda dy, y: dy.astype(y.dtype), dY, Y)
    found, truth = ours(cotangent, *given), exact(*wide((cotangent, *given)))
    assert jax.tree.structure(found) == jax.tree.structure(truth)
    for mine, right in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
        with np.errstate(over="ignore"):
            fits = np.isfinite(np.asarray(right, dtype)) & np.isfinite(right)
        mine, right = np.asarray(mine, np.float64)[fits], np.asarray(right)[fits]
        assert np.isfinite(mine).all(), (np.dtype(dtype).name, mine, right)
        bar = 32 * float(jnp.finfo(dtype).eps) * np.abs(right).max(initial=0) + 4 * float(jnp.finfo(dtype).tiny)
        assert np.abs(mine - right).max(initial=0) <= bar, (np.dtype(dtype).name, mine, right)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.op) for c in first_rows().values() if c.op not in IN_ITS_OWN_DTYPE]
)
def test_one_argument_in_float32_beside_float64(case):
    """Nothing that ends in float64 has been rounded to float32 on the way."""
    ours, exact = optimized_jit(by_hand(case)), optimized_jit(by_autodiff(case))
    dY, *arguments = drawn(case)
    numbers = [i for i, a in enumerate(arguments) if is_floating(a)]
    for narrow in numbers if len(numbers) > 1 else ():
        given = [a.astype(jnp.float32) if i == narrow else a for i, a in enumerate(arguments)]
        Y = jax.eval_shape(lambda *a: case.settled.forward(*a)[0], *given)
        cotangent = jax.tree.map(lambda dy, y: dy.astype(jnp.float32).astype(y.dtype), dY, Y)
        found, truth = ours(cotangent, *given), exact(*wide((cotangent, *given)))
        for mine, right in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True):
            bar = 1e-11 if mine.dtype == jnp.float64 else 4e-7
            np.testing.assert_allclose(
                mine, right, rtol=0, atol=bar * np.abs(right).max(initial=0), err_msg=str(narrow)
            )


def test_exceptions_are_of_rows():
    assert EXCEPTIONS.keys() <= {name for case in PROGRAMS for name in (case.op, str(case))}
    assert FAR.keys() | IN_ITS_OWN_DTYPE <= first_rows().keys()
