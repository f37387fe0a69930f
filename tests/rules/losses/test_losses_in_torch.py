"""PyTorch as a third party: losses of every option, values and all gradients, in float64."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import materialize, rules

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")
F = torch.nn.functional

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
SHAPE = BATCH, TOKENS, N = 4, 3, 5
Z = 2 * RNG.standard_normal(SHAPE)
NUMBERS = RNG.standard_normal(SHAPE)
LABELS = RNG.integers(0, N, SHAPE[:2])
IGNORED = np.where([[True, False, False]], -100, LABELS)
DISTRIBUTIONS = RNG.dirichlet(np.ones(N), SHAPE[:2])
LOG_P, LOG_Q = np.log(RNG.dirichlet(np.ones(N), (2, *SHAPE[:2])))
CLASS_WEIGHTS = RNG.uniform(0.2, 2, N)
PROBABILITIES = RNG.uniform(0, 1, SHAPE)
BITS = RNG.integers(0, 2, SHAPE)
SIGNS = 2.0 * BITS - 1
COUNTS = RNG.poisson(2, SHAPE).astype(float)
RATES = RNG.uniform(0.1, 4, SHAPE)
W, B = RNG.standard_normal((N, 7)), RNG.standard_normal(7)
CLASSES = RNG.integers(0, 7, SHAPE[:2])
DC = RNG.standard_normal(BATCH)


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_torchs(op, arguments, function, **options):
    """C and the cotangent of each argument of numbers, at most 1e-10 apart."""
    leaves = [None if a is None else torch.tensor(a, requires_grad=a.dtype == np.float64) for a in arguments]
    expected = function(*leaves)
    expected.backward(torch.tensor(DC))
    C, residuals = getattr(rules, op).forward(*(None if a is None else jnp.asarray(a) for a in arguments), **options)
    backward = functools.partial(getattr(rules, op).backward, **{k: v for k, v in options.items() if k != "residuals"})
    cotangents = materialize(backward(residuals, jnp.asarray(DC)))
    assert relative_error(C, expected.detach().numpy()) <= 1e-10
    for leaf, cotangent in zip(leaves, cotangents, strict=False):
        if leaf is not None and leaf.requires_grad:
            assert relative_error(cotangent, leaf.grad.numpy()) <= 1e-10
        else:
            assert cotangent is None


def summed(C):
    return C.reshape(BATCH, -1).sum(1)


def cross_entropy(z, y, weight=None, **options):
    """F.cross_entropy has the classes behind the batch."""
    y = y if y.ndim == 2 else y.movedim(-1, 1)
    return summed(F.cross_entropy(z.movedim(-1, 1), y, weight, reduction="none", **options))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("target", "ignore"),
    [(LABELS, None), (IGNORED, -100), (LABELS, 2), (DISTRIBUTIONS, None)],
    ids=["labels", "ignored", "ignored-class", "distributions"],
)
def test_cross_entropy(target, ignore, weighted, label_smoothing):
    function = functools.partial(cross_entropy, label_smoothing=label_smoothing)
    if ignore is not None:
        function = functools.partial(function, ignore_index=ignore)
    arguments = (Z, target, CLASS_WEIGHTS) if weighted else (Z, target)
    if weighted:  # torch has no gradient by its weights: with them as a leaf it refuses
        constant = torch.tensor(CLASS_WEIGHTS)
        C, residuals = rules.softmax_cross_entropy_forward(
            *map(jnp.asarray, arguments), label_smoothing=label_smoothing, ignore_index=ignore
        )
        dZ, dY, dw = rules.softmax_cross_entropy_backward(
            residuals, jnp.asarray(DC), label_smoothing=label_smoothing, ignore_index=ignore
        )
        z = torch.tensor(Z, requires_grad=True)
        y = torch.tensor(target, requires_grad=target.ndim == 3)
        expected = function(z, y, constant)
        expected.backward(torch.tensor(DC))
        assert relative_error(C, expected.detach().numpy()) <= 1e-10
        assert relative_error(dZ, z.grad.numpy()) <= 1e-10
        if target.ndim == 3:
            assert relative_error(dY, y.grad.numpy()) <= 1e-10
        unit = [function(torch.tensor(Z), torch.tensor(target), torch.eye(N, dtype=torch.float64)[k]) for k in range(N)]
        assert relative_error(dw, [float(torch.tensor(DC) @ one) for one in unit]) <= 1e-10  # C is linear in w
    else:
        assert_torchs(
            "softmax_cross_entropy", arguments, function, label_smoothing=label_smoothing, ignore_index=ignore
        )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_mean_of_torch(label_smoothing):
    """docs/derivations/losses/softmax_cross_entropy.md: divided by the weights of the labels that count."""
    options = {"label_smoothing": label_smoothing, "ignore_index": -100}
    C, _ = rules.softmax_cross_entropy_forward(*map(jnp.asarray, (Z, IGNORED, CLASS_WEIGHTS)), **options)
    z, y = torch.tensor(Z).movedim(-1, 1), torch.tensor(IGNORED)
    mean = F.cross_entropy(z, y, torch.tensor(CLASS_WEIGHTS), reduction="mean", **options)
    np.testing.assert_allclose(C.sum() / CLASS_WEIGHTS[IGNORED[IGNORED != -100]].sum(), float(mean), rtol=1e-12)
    C, _ = rules.softmax_cross_entropy_forward(*map(jnp.asarray, (Z, DISTRIBUTIONS, CLASS_WEIGHTS)))
    mean = F.cross_entropy(z, torch.tensor(DISTRIBUTIONS).movedim(-1, 1), torch.tensor(CLASS_WEIGHTS))
    np.testing.assert_allclose(C.sum() / (BATCH * TOKENS), float(mean), rtol=1e-12)


def with_extras(z, y, z_loss=0.0, softcap=None, **options):
    s = z if softcap is None else softcap * torch.tanh(z / softcap)
    counts = y != options.get("ignore_index", -100)
    return cross_entropy(s, y, **options) + z_loss * summed(counts * torch.logsumexp(s, -1) ** 2)


EXTRAS = [
    {"z_loss": 0.1},
    {"softcap": 2.0},
    {"label_smoothing": 0.2, "z_loss": 0.1, "softcap": 3.0, "ignore_index": -100},
]
extras = pytest.mark.parametrize("options", EXTRAS, ids=lambda options: "-".join(options))


@extras
def test_z_loss_and_softcap(options):
    """By torch's autograd of the formulas."""
    target = IGNORED if "ignore_index" in options else LABELS
    assert_torchs("softmax_cross_entropy", (Z, target), functools.partial(with_extras, **options), **options)


@extras
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [5, 100])
def test_linear_cross_entropy(options, bias, chunk):
    target = IGNORED if "ignore_index" in options else CLASSES

    def function(x, weight, b, y):
        return with_extras(F.linear(x, weight.T, b), y, **options)

    assert_torchs("linear_cross_entropy", (Z, W, B if bias else None, target), function, chunk=chunk, **options)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("target", [PROBABILITIES, BITS], ids=["probabilities", "bits"])
def test_focal_loss(target, gamma, alpha):
    """torchvision's formula, by torch's autograd."""

    def function(z, y):
        p = torch.sigmoid(z)
        C = F.binary_cross_entropy_with_logits(z, y.to(z.dtype), reduction="none")
        C = C * (1 - (p * y + (1 - p) * (1 - y))) ** gamma
        return summed(C if alpha is None else (alpha * y + (1 - alpha) * (1 - y)) * C)

    assert_torchs("focal_loss", (Z, target), function, gamma=gamma, alpha=alpha)


def test_hinge_loss():
    """By the formula, and as twice the margin loss of two classes."""
    assert_torchs("hinge_loss", (Z, SIGNS), lambda a, y: summed(F.relu(1 - y * a)))

    def two_classes(a):
        scores = torch.stack([-a, a], -1).reshape(-1, 2) / 2
        return summed(2 * F.multi_margin_loss(scores, torch.tensor(BITS).reshape(-1), reduction="none").reshape(SHAPE))

    leaf = torch.tensor(Z, requires_grad=True)
    expected = two_classes(leaf)
    expected.backward(torch.tensor(DC))
    C, residuals = rules.hinge_loss_forward(jnp.asarray(Z), jnp.asarray(SIGNS))
    assert relative_error(C, expected.detach().numpy()) <= 1e-10
    assert relative_error(rules.hinge_loss_backward(residuals, jnp.asarray(DC))[0], leaf.grad.numpy()) <= 1e-10


def test_kl_divergence():
    kl_div = functools.partial(F.kl_div, reduction="none")
    assert_torchs("kl_divergence", (LOG_P, DISTRIBUTIONS), lambda p, q: summed(kl_div(p, q)))
    assert_torchs("kl_divergence", (LOG_P, LOG_Q), lambda p, q: summed(kl_div(p, q, log_target=True)), log_target=True)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("log_input", "prediction"), [(True, Z), (False, RATES)], ids=["log", "rates"])
def test_poisson_loss(log_input, prediction, full):
    """No target is 1, where Stirling's term begins."""

    def function(a, y):
        return summed(F.poisson_nll_loss(a, y, log_input=log_input, full=full, eps=1e-8, reduction="none"))

    options = {"log_input": log_input, "full": full, "epsilon": 1e-8}
    assert_torchs("poisson_loss", (prediction, COUNTS + 0.25), function, **options)


def test_cosine_distance():
    assert_torchs("cosine_distance", (Z, NUMBERS), lambda a, y: summed(1 - F.cosine_similarity(a, y, dim=-1)))
    assert_torchs(
        "cosine_distance",
        (Z[:, 0], NUMBERS[:, 0]),
        lambda a, y: F.cosine_embedding_loss(a, y, torch.ones(BATCH), reduction="none"),
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("policy", ["save", "recompute"])
def test_info_nce(normalize, policy):
    """F.cross_entropy of the matrix of similarities."""

    def function(a, y):
        if normalize:
            a, y = F.normalize(a, eps=1e-8), F.normalize(y, eps=1e-8)
        return F.cross_entropy(a @ y.T / 0.3, torch.arange(BATCH), reduction="none")

    options = {"temperature": 0.3, "normalize": normalize, "residuals": policy}
    assert_torchs("info_nce", (Z[:, 0], NUMBERS[:, 0]), function, **options)
