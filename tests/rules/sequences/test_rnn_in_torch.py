"""PyTorch's RNN, LSTM and GRU, of which rnn, lstm and gru have the names: values and all gradients, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import passes, together
from in_torch import assert_close, torch

from handgrad import layers, rules
from handgrad.layers import Sequences

RNG = np.random.default_rng(0)
BATCH, TIME, N_IN, N = 4, 6, 3, 5
X = RNG.standard_normal((BATCH, TIME, N_IN))
LENGTHS = np.array([6, 2, 1, 4])


def torch_module(kind, activation="tanh", **options):
    torch.manual_seed(0)
    options |= {"nonlinearity": activation} if kind == "rnn" else {}
    module = getattr(torch.nn, kind.upper())(N_IN, N, batch_first=True, **options).double()
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


def of_torch(module, suffix, read):
    """Its two weights and two biases, or their gradients."""
    parts = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    return (read(getattr(module, f"{part}_{suffix}")).numpy() for part in parts)


def params_of(module, kind, suffix):
    """W, U, b (and c) from torch's two weights and two biases."""
    W, U, b, b_hh = of_torch(module, suffix, lambda p: p.detach())
    if kind == "gru":
        return W.T, U.T, b + np.where(np.arange(3 * N) < 2 * N, b_hh, 0), b_hh[2 * N :]
    return W.T, U.T, b + b_hh


def gradients_of(module, kind, suffix):
    """torch's gradients in the order of W, U, b (and c): either bias has the gradient of the sum."""
    W, U, b, b_hh = of_torch(module, suffix, lambda p: p.grad)
    return (W.T, U.T, b, b_hh[2 * N :]) if kind == "gru" else (W.T, U.T, b)


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize(("kind", "options"), [("rnn", {}), ("rnn", {"activation": "relu"}), ("lstm", {}), ("gru", {})])
def test_rule(kind, options):
    """The gradients of X, parameters and initial states, from cotangents of all outputs; plain, and packed."""
    calls, truths = [], []
    for lengths in (None, LENGTHS):
        module = torch_module(kind, **options)
        shapes = [(1, BATCH, N)] * (2 if kind == "lstm" else 1)
        states = [torch.tensor(RNG.standard_normal(shape), requires_grad=True) for shape in shapes]
        x = torch.tensor(X, requires_grad=True)
        output, last = run(module, x, tuple(states) if kind == "lstm" else states[0], lengths)
        dH, dlast = RNG.standard_normal(output.shape), [RNG.standard_normal((BATCH, N)) for _ in states]
        outputs = (output, *(part[0] for part in as_tuple(last)))
        torch.autograd.backward(outputs, [torch.tensor(d) for d in (dH, *dlast)])
        arguments = [*params_of(module, kind, "l0"), *(state.detach().numpy()[0] for state in states)]
        dY = dH, tuple(dlast) if kind == "lstm" else dlast[0]
        calls.append((getattr(rules, kind).with_options(**options), dY, (X, *arguments, lengths)))
        gradients = x.grad, *gradients_of(module, kind, "l0"), *(state.grad[0] for state in states)
        truths.append([[part.detach().numpy() for part in outputs], [np.asarray(g) for g in gradients]])
    assert_close(together(calls), truths)


@pytest.mark.parametrize(("kind", "lengths"), [("rnn", None), ("lstm", LENGTHS), ("gru", LENGTHS)])
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

    make_params = getattr(layers, f"{kind.capitalize()}Params")
    params = tuple(
        layers.BidirectionalParams(*(make_params(*params_of(module, kind, f"l{i}{end}")) for end in ("", "_reverse")))
        for i in range(2)
    )
    given = Sequences(X, lengths, split([state.detach().numpy() for state in states]))
    given, dlast = jax.tree.map(jnp.asarray, (given, split(dlast)))

    run_both = jax.jit(lambda dY, *arguments: passes(model, dY, *arguments))
    (H, found_last), (dx, dparams) = run_both((Sequences(jnp.asarray(dH)), dlast), params, given)
    assert_close((H.X, dx.X), (output.detach(), x.grad))
    assert_close(found_last, split([part.detach().numpy() for part in as_tuple(last)]))
    assert_close(dx.state, split([state.grad.numpy() for state in states]))
    expected = [[gradients_of(module, kind, f"l{i}{end}") for end in ("", "_reverse")] for i in range(2)]
    assert_close(dparams, expected)
