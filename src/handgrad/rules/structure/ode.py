"""Steps of a Runge-Kutta method for dZ/dt = f(t, Z), and the two ways back through one of them.

    K_i = f(t + c_i h, Z + h Σ_{j<i} a_ij K_j)        Z⁺ = Z + h Σ_i b_i K_i

`pull_back_runge_kutta` differentiates these equations: the exact gradient of what was computed (discretize, then
optimize). `adjoint_runge_kutta` takes a step of the adjoint equation backwards in time (optimize, then discretize): it
needs no Z but that at the end, and is as exact as the method. The equations take f and its pull-back as functions.

Derivation: docs/derivations/structure/ode.md
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from jaxtyping import Array, Float

__all__ = ["RUNGE_KUTTA", "Tableau", "adjoint_runge_kutta", "pull_back_runge_kutta", "runge_kutta_step"]

State = Float[Array, "batch *rest"]
Time = Float[Array, ""]
D = TypeVar("D")
Field = Callable[[Time, State], State]
Linearized = Callable[[Time, State], tuple[State, Callable[[State], tuple[State, D]]]]


class Tableau(NamedTuple):
    """A Runge-Kutta method (Butcher tableau): an explicit one, so that row i of a has i numbers.

    Attributes:
      a: weights of the slopes before, for each stage.
      b: weights of the slopes, for the step.
      c: where in the step each stage is.
      order: the error of a step of h is O(h^(order + 1)).
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int


RUNGE_KUTTA = {
    "euler": Tableau(((),), (1.0,), (0.0,), 1),
    "midpoint": Tableau(((), (1 / 2,)), (0.0, 1.0), (0.0, 1 / 2), 2),
    "rk4": Tableau(
        ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 1 / 2, 1 / 2, 1.0), 4
    ),
    # Dormand and Prince, 1980: the fifth-order solution, which needs six of the seven stages.
    "dopri5": Tableau(
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        5,
    ),
}
"""The explicit methods by name: "euler", "midpoint", "rk4", and "dopri5" (Dormand and Prince, 1980)."""


def runge_kutta_step(f: Field, method: Tableau, t: Time, h: Time, Z: State) -> State:
    """Z⁺ = Z + h Σ b_i K_i, from time t to t + h."""
    K: list[State] = []
    for c, row in zip(method.c, method.a, strict=True):
        K.append(f(t + c * h, _plus(Z, h, row, K)))
    return _plus(Z, h, method.b, K)


def pull_back_runge_kutta(
    f: Linearized[D], method: Tableau, t: Time, h: Time, Z: State, dZ: State
) -> tuple[State, list[D]]:
    """Pull dZ at the step's end back through the step, whose stages run once more.

        dK_i = h (b_i dZ⁺ + Σ_{j>i} a_ji dU_j)        dU_i = (∂f_i)ᵀ dK_i        dZ = dZ⁺ + Σ_i dU_i

    Args:
      f: (t, Z) -> (K, its pull-back: dK -> (dZ, dparams)).
    Returns:
      dZ at the step's beginning; dparams of each stage.
    """
    K: list[State] = []
    pull_backs = []
    for c, row in zip(method.c, method.a, strict=True):
        slope, pull_back = f(t + c * h, _plus(Z, h, row, K))
        K.append(slope)
        pull_backs.append(pull_back)
    dU: list[State] = []  # of the later stages, the last one first
    dparams: list[D] = []
    for i, pull_back in reversed([*enumerate(pull_backs)]):
        later = [method.a[j][i] for j in reversed(range(i + 1, len(K)))]
        dK = h * _weighted((method.b[i], *later), [dZ, *dU], like=dZ)
        change, of_stage = pull_back(dK)
        dU.append(change)
        dparams.append(of_stage)
    return _weighted((1.0,) * (1 + len(dU)), [dZ, *dU], like=dZ), dparams[::-1]


def adjoint_runge_kutta(
    f: Linearized[D], method: Tableau, t: Time, h: Time, Z: State, A: State
) -> tuple[State, State, list[D]]:
    """From the end of a step back to its beginning, along dZ/dt = f and dA/dt = −(∂f)ᵀ A, A being the cotangent of Z.

        dθ = ∫ (∂f/∂θ)ᵀ A dt ≈ h Σ_i b_i (∂f_i/∂θ)ᵀ A_i

    Args:
      f: (t, Z) -> (K, its pull-back: dK -> (dZ, dparams)).
      t, h: of the step in time's own direction, from t to t + h.
      Z, A: at its end.
    Returns:
      Z and A at its beginning; dparams of each stage that has a weight in the sum.
    """
    K: list[State] = []
    L: list[State] = []  # h (∂f)ᵀ A
    dparams: list[D] = []
    for b, c, row in zip(method.b, method.c, method.a, strict=True):
        slope, pull_back = f(t + h - c * h, _plus(Z, -h, row, K))
        change, of_stage = pull_back((b or 1.0) * h * (A + _weighted(row, L, like=A)))
        K.append(slope)
        L.append(change / (b or 1.0))
        if b:
            dparams.append(of_stage)
    return _plus(Z, -h, method.b, K), A + _weighted(method.b, L, like=A), dparams


def _plus(Z: State, h: Time, weights: tuple[float, ...], K: list[State]) -> State:
    """Z + h Σ weights_j K_j."""
    return Z + h * _weighted(weights, K, like=Z) if any(weights) else Z


def _weighted(weights: tuple[float, ...], K: list[State], like: State) -> State:
    """Σ weights_j K_j, without those of weight 0."""
    terms = [k if w == 1.0 else w * k for w, k in zip(weights, K, strict=True) if w]
    return sum(terms[1:], terms[0]) if terms else 0 * like
