"""PyTorch's convolutions and pools: values and every gradient on the same numbers, in float64, option by option.

PyTorch has features behind the batch and kernels as (n_out, n_in / groups, *size): axes move, numbers don't.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import materialize, rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def to_torch(X):
    """(batch, *space, n) -> (batch, n, *space)."""
    return np.ascontiguousarray(np.moveaxis(X, -1, 1))


def from_torch(X):
    return np.moveaxis(X, 1, -1)


def kernel_to_torch(K):
    """(*size, one, other) -> (other, one, *size): a convolution's kernel and a transposed one's alike."""
    return np.ascontiguousarray(np.moveaxis(K, (-1, -2), (0, 1)))


def kernel_from_torch(K):
    return np.moveaxis(K, (0, 1), (-1, -2))


def in_torch(function, dY, *arguments):
    """The value, and a cotangent for each argument, by torch's autograd."""
    leaves = [torch.tensor(a, requires_grad=True) for a in arguments]
    value = function(*leaves)
    value.backward(torch.tensor(dY))
    return value.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)


def by_hand(op, arguments, options, dY):
    forward, backward = getattr(rules, op)

    @jax.jit
    def both(dY, *arguments):
        Y, residuals = forward(*arguments, **options)
        of_backward = {name: value for name, value in options.items() if name != "residuals"}
        return Y, *materialize(backward(residuals, dY, **of_backward))

    return both(dY, *map(jnp.asarray, arguments))


def shape_of(op, arguments, options):
    forward = getattr(rules, op).forward
    return jax.eval_shape(lambda *a: forward(*a, **options)[0], *map(jnp.asarray, arguments)).shape


def assert_same(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.shape == theirs.shape
        assert np.abs(np.asarray(mine) - theirs).max() <= 1e-10 * np.abs(theirs).max()


def margins(*pads):
    return tuple((p, p) for p in pads)


CONVOLUTIONS = {
    # space, n_in, n_out, size, options
    "1d": ((7,), 3, 2, (3,), {}),
    "1d-strides": ((9,), 2, 3, (4,), {"stride": 3, "padding": 2}),
    "1d-dilation": ((9,), 2, 3, (3,), {"dilation": 3, "padding": 4}),
    "1d-groups": ((6,), 4, 6, (2,), {"groups": 2}),
    "1d-depthwise": ((6,), 3, 6, (3,), {"groups": 3, "stride": 2, "padding": 1}),
    "1d-same": ((6,), 2, 2, (4,), {"padding": "same", "dilation": 2}),
    "2d": ((5, 4), 2, 3, (3, 2), {}),
    "2d-strides": ((6, 7), 2, 3, (3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "2d-strides beyond the window": ((7, 8), 2, 1, (2, 1), {"stride": (4, 3)}),
    "2d-dilation": ((7, 6), 2, 2, (3, 2), {"dilation": (2, 3), "padding": (3, 0)}),
    "2d-groups": ((4, 4), 6, 4, (2, 3), {"groups": 2, "padding": (0, 1)}),
    "2d-depthwise": ((5, 5), 3, 3, (3, 3), {"groups": 3, "padding": 1, "stride": 2}),
    "2d-everything": ((8, 7), 4, 6, (3, 2), {"groups": 2, "padding": (2, 1), "stride": (2, 3), "dilation": (2, 1)}),
    "2d-same": ((5, 4), 2, 2, (2, 3), {"padding": "same"}),
    "2d-valid": ((5, 4), 2, 2, (2, 3), {"padding": "valid"}),
    "3d": ((3, 4, 3), 2, 2, (2, 3, 2), {}),
    "3d-everything": (
        (5, 4, 5),
        4,
        4,
        (2, 2, 3),
        {"groups": 4, "padding": (1, 0, 2), "stride": (2, 1, 3), "dilation": (1, 3, 2)},
    ),
}


def as_ours(axes, stride=1, padding=0, dilation=1, groups=1):
    """PyTorch's options as handgrad writes them."""
    pads = (
        padding
        if isinstance(padding, str)
        else margins(*(padding if isinstance(padding, tuple) else (padding,) * axes))
    )
    return {
        "strides": stride,
        "padding": pads.upper() if isinstance(pads, str) else pads,
        "dilation": dilation,
        "groups": groups,
    }


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("space", "n_in", "n_out", "size", "options"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution(space, n_in, n_out, size, options, bias):
    ours = as_ours(len(space), **options)
    arguments = (
        normal(2, *space, n_in),
        normal(*size, n_in // ours["groups"], n_out),
        *((normal(n_out),) if bias else ()),
    )
    dY = normal(*shape_of("convolution", arguments, ours), seed=1)
    found = by_hand("convolution", arguments, ours, dY)
    X, K, *b = arguments
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(space) - 1]
    value, dX, dK, *db = in_torch(
        lambda X, K, b=None: convolve(X, K, b, **options), to_torch(dY), to_torch(X), kernel_to_torch(K), *b
    )
    if not bias:
        assert found[-1] is None
        found = found[:-1]
    assert_same(found, (from_torch(value), from_torch(dX), kernel_from_torch(dK), *db))


TRANSPOSED = {
    "1d": ((4,), 3, 2, (3,), {}),
    "1d-output padding": ((4,), 2, 3, (4,), {"stride": 3, "padding": 2, "output_padding": 2}),
    "1d-groups": ((4,), 4, 6, (2,), {"groups": 2, "stride": 2, "output_padding": 1}),
    "2d": ((3, 2), 2, 3, (3, 2), {}),
    "2d-strides": ((3, 4), 2, 3, (3, 3), {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2)}),
    "2d-dilation": ((3, 4), 2, 2, (3, 2), {"dilation": (2, 3), "padding": (3, 0)}),
    "2d-depthwise": ((3, 3), 3, 3, (3, 3), {"groups": 3, "padding": 1, "stride": 2}),
    "2d-strides beyond the window": ((3, 2), 2, 1, (2, 1), {"stride": (4, 3), "output_padding": (3, 0)}),
    "3d-everything": (
        (2, 3, 2),
        4,
        2,
        (2, 2, 3),
        {"groups": 2, "padding": (1, 0, 2), "stride": (2, 1, 3), "dilation": (1, 3, 2), "output_padding": (1, 0, 2)},
    ),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("space", "n_in", "n_out", "size", "options"), TRANSPOSED.values(), ids=TRANSPOSED)
def test_transposed_convolution(space, n_in, n_out, size, options, bias):
    theirs = {name: value for name, value in options.items() if name != "output_padding"}
    ours = as_ours(len(space), **theirs) | {"output_padding": options.get("output_padding", 0)}
    arguments = (
        normal(2, *space, n_in),
        normal(*size, n_out // ours["groups"], n_in),
        *((normal(n_out),) if bias else ()),
    )
    dY = normal(*shape_of("transposed_convolution", arguments, ours), seed=1)
    found = by_hand("transposed_convolution", arguments, ours, dY)
    X, K, *b = arguments
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(space) - 1]
    value, dX, dK, *db = in_torch(
        lambda X, K, b=None: convolve(X, K, b, **options), to_torch(dY), to_torch(X), kernel_to_torch(K), *b
    )
    found = found if bias else found[:-1]
    assert_same(found, (from_torch(value), from_torch(dX), kernel_from_torch(dK), *db))


POOLS = {
    "1d": ((7,), {"kernel_size": 2}),
    "1d-strides": ((8,), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "2d": ((5, 6), {"kernel_size": 2}),
    "2d-overlap": ((6, 5), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}),
    "2d-beyond": ((8, 7), {"kernel_size": 2, "stride": 3}),
    "3d": ((3, 4, 4), {"kernel_size": (2, 3, 2), "stride": (1, 2, 2), "padding": (1, 0, 1)}),
}
DILATED = {
    "1d-dilation": ((9,), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 3}),
    "2d-dilation": ((7, 8), {"kernel_size": (2, 3), "stride": 1, "padding": 1, "dilation": (3, 2)}),
    "3d-dilation": ((5, 4, 5), {"kernel_size": 2, "stride": 2, "dilation": (3, 2, 1)}),
}


def pool_as_ours(axes, kernel_size, stride=None, padding=0, dilation=1):
    pads = padding if isinstance(padding, tuple) else (padding,) * axes
    return {"window": kernel_size, "strides": stride, "padding": margins(*pads), "dilation": dilation}


def compare_pool(op, function, X, ours):
    dY = normal(*shape_of(op, (X,), ours), seed=1)
    value, dX = in_torch(function, to_torch(dY), to_torch(X))
    assert_same(by_hand(op, (X,), ours, dY), (from_torch(value), from_torch(dX)))


@pytest.mark.parametrize("residuals", ["save", "recompute"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("space", "options"), (POOLS | DILATED).values(), ids=POOLS | DILATED)
def test_max_pool(space, options, ties, residuals):
    """Ties too: PyTorch sends them to the first element, as JAX."""
    X = normal(2, *space, 3)
    X = np.round(X) if ties else X
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(space) - 1]
    ours = pool_as_ours(len(space), **options) | {"residuals": residuals}
    compare_pool("max_pool", lambda X: pool(X, **options), X, ours)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("space", "options"), POOLS.values(), ids=POOLS)
def test_average_pool(space, options, count_include_pad):
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(space) - 1]
    ours = pool_as_ours(len(space), **options) | {"count_include_pad": count_include_pad}
    function = lambda X: pool(X, count_include_pad=count_include_pad, **options)  # noqa: E731
    compare_pool("average_pool", function, normal(2, *space, 3), ours)


@pytest.mark.parametrize("space", [(4,), (3, 4), (2, 3, 2)])
def test_global_pools_and_flatten(space):
    axes = tuple(range(2, 2 + len(space)))
    X = normal(2, *space, 3)
    tied = np.round(X)
    dY = normal(2, 3, seed=1)
    for op, given, function in (
        ("global_average_pool", X, lambda X: X.mean(axes)),
        ("global_max_pool", X, lambda X: X.amax(axes)),
        ("global_max_pool", tied, lambda X: X.amax(axes)),
    ):
        value, dX = in_torch(function, dY, to_torch(given))
        assert_same(by_hand(op, (given,), {}, dY), (value, from_torch(dX)))
    dY = normal(*shape_of("flatten", (X,), {}), seed=2)
    assert_same(by_hand("flatten", (X,), {}, dY), in_torch(lambda X: X.flatten(1), dY, X))
