"""PyTorch's RNN, LSTM and GRU: values and all gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import handgrad as hg
from handgrad import layers, rules
from handgrad.layers import Sequences

torch = pytest.importorskip("torch", reason="PyTorch, the optional third party, is not installed")

pytestmark = pytest.mark.third_party

RNG = np.random.default_rng(0)
BATCH, TIME, N_IN, N = 4, 6, 3, 5
X = RNG.standard_normal((BATCH, TIME, N_IN))
LENGTHS = np.array([6, 2, 1, 4])
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def relative_error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def torch_module(kind, activation="tanh", **options):
    torch.manual_seed(0)
    module = {
        "rnn": lambda: torch.nn.RNN(N_IN, N, nonlinearity=activation, batch_first=True, **options),
        "lstm": lambda: torch.nn.LSTM(N_IN, N, batch_first=True, **options),
        "gru": lambda: torch.nn.GRU(N_IN, N, batch_first=True, **options),
    }[kind]().double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return module


def run(module, x, state, lengths):
    """The output and the last state, through a packed sequence where there are lengths."""
    if lengths is None:
        return module(x, state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, last = module(packed, state)
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=TIME)
    return output, last


def params_of(module, kind, suffix, read=lambda p: p.detach().numpy()):
    """W, U, b (and c) from torch's two weights and two biases."""
    W, U, b, b_hh = (
        read(getattr(module, f"{part}_{suffix}")) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    if kind == "gru":
        return W.T, U.T, b + np.where(np.arange(3 * N) < 2 * N, b_hh, 0), b_hh[2 * N :]
    return W.T, U.T, b + b_hh


def gradients_of(module, kind, suffix):
    """torch's gradients in the order of W, U, b (and c): either bias has the gradient of the sum."""
    W, U, b, b_hh = (
        getattr(module, f"{part}_{suffix}").grad.numpy() for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return (W.T, U.T, b, b_hh[2 * N :]) if kind == "gru" else (W.T, U.T, b)


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


KINDS = [("rnn", {}), ("rnn", {"activation": "relu"}), ("lstm", {}), ("lstm", {"residuals": "recompute"})]
KINDS += [("gru", {}), ("gru", {"residuals": "recompute"})]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "packed"])
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=lambda v: v if isinstance(v, str) else "-".join(v.values()))
def test_rule(kind, options, lengths):
    """Values, and the gradients of X, all parameters and all initial states, from cotangents of all outputs."""
    module = torch_module(kind, options.get("activation", "tanh"))
    shapes = [(1, BATCH, N)] * (2 if kind == "lstm" else 1)
    states = [torch.tensor(RNG.standard_normal(shape), requires_grad=True) for shape in shapes]
    x = torch.tensor(X, requires_grad=True)
    output, last = run(module, x, tuple(states) if kind == "lstm" else states[0], lengths)
    dH, dlast = RNG.standard_normal(output.shape), [RNG.standard_normal((BATCH, N)) for _ in states]
    outputs = (output, *(part[0] for part in as_tuple(last)))
    torch.autograd.backward(outputs, [torch.tensor(d) for d in (dH, *dlast)])

    def by_hand(X, dY, lengths, *params_and_states):
        forward, backward = getattr(rules, kind)
        Y, residuals = forward(X, *params_and_states, lengths, **options)
        of_backward = {name: value for name, value in options.items() if name != "residuals"}
        return Y, backward(residuals, dY, **of_backward)

    arguments = [*params_of(module, kind, "l0"), *(state.detach().numpy()[0] for state in states)]
    dY = (dH, tuple(dlast) if kind == "lstm" else dlast[0])
    Y, (dX, *cotangents, dlengths) = jax.jit(by_hand)(X, dY, lengths, *arguments)
    assert dlengths is None
    for found, expected in zip(jax.tree.leaves(Y), outputs, strict=True):
        assert relative_error(found, expected.detach().numpy()) <= 1e-12
    expected = [x.grad, *gradients_of(module, kind, "l0"), *(state.grad[0] for state in states)]
    for one, other in zip(hg.materialize([dX, *cotangents]), expected, strict=True):
        assert relative_error(one, other) <= 1e-12


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["all", "packed"])
@pytest.mark.parametrize("kind", GATES)
def test_two_layers_in_both_directions(kind, lengths):
    """stacked and bidirectional, with a state for each of the four."""
    module = torch_module(kind, num_layers=2, bidirectional=True)
    shape = (4, BATCH, N)
    states = [torch.tensor(RNG.standard_normal(shape), requires_grad=True) for _ in range(2 if kind == "lstm" else 1)]
    x = torch.tensor(X, requires_grad=True)
    output, last = run(module, x, tuple(states) if kind == "lstm" else states[0], lengths)
    dH, dlast = RNG.standard_normal(output.shape), [RNG.standard_normal(shape) for _ in states]
    torch.autograd.backward((output, *as_tuple(last)), [torch.tensor(d) for d in (dH, *dlast)])

    make = getattr(layers, kind)
    pair = layers.bidirectional(make(N, returns="both"), make(N, reverse=True, returns="both"))
    model = layers.stacked(pair, pair)

    def split(arrays):
        """torch's (4, batch, n) as two layers' pairs of states."""
        states = [tuple(a[i] for a in arrays) if kind == "lstm" else arrays[0][i] for i in range(4)]
        return (states[0], states[1]), (states[2], states[3])

    make_params = {"rnn": layers.RnnParams, "lstm": layers.LstmParams, "gru": layers.GruParams}[kind]
    params = tuple(
        layers.BidirectionalParams(*(make_params(*params_of(module, kind, f"l{i}{end}")) for end in ("", "_reverse")))
        for i in range(2)
    )
    given = Sequences(X, lengths, split([state.detach().numpy() for state in states]))
    given, dlast = jax.tree.map(jnp.asarray, (given, split(dlast)))

    @jax.jit
    def by_hand(params, x, dH, dlast):
        y, residuals = model.forward(params, x)
        return y, *model.backward(residuals, (Sequences(dH), dlast))

    (H, found_last), dx, dparams = by_hand(params, given, dH, dlast)
    assert relative_error(H.X, output.detach().numpy()) <= 1e-12
    expected_last = split([part.detach().numpy() for part in as_tuple(last)])
    for one, other in zip(jax.tree.leaves(found_last), jax.tree.leaves(expected_last), strict=True):
        assert relative_error(one, other) <= 1e-12
    assert relative_error(dx.X, x.grad) <= 1e-12
    for one, other in zip(
        jax.tree.leaves(dx.state), jax.tree.leaves(split([state.grad.numpy() for state in states])), strict=True
    ):
        assert relative_error(one, other) <= 1e-12
    for i, layer in enumerate(dparams):
        for end, factors in zip(("", "_reverse"), layer, strict=True):
            for factor, other in zip(factors, gradients_of(module, kind, f"l{i}{end}"), strict=True):
                assert relative_error(factor.sum(), other) <= 1e-12
