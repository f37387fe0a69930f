"""Simple functions of a number that a gradient may be missing as a factor, and the factors that sizes make."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from handgrad.crosscheck.errors.program.arrangement import count
from handgrad.crosscheck.errors.program.program import Program, Step

Function = tuple[str, Callable[[Any], Any]]  # ("1 − {}²", m -> 1 − m²)

FUNCTIONS: tuple[Function, ...] = (
    ("{}", lambda m: m),
    ("1 − {}", lambda m: 1 - m),
    ("1 − {}²", lambda m: 1 - m * m),
    ("{} (1 − {})", lambda m: m * (1 - m)),
    ("{}²", lambda m: m * m),
    ("1 / {}", lambda m: 1 / m),
    ("1 + {}", lambda m: 1 + m),
    ("1 / {}²", lambda m: 1 / (m * m)),
    ("1 + {}²", lambda m: 1 + m * m),
    ("√{}", lambda m: np.sqrt(m)),
    ("1 / √{}", lambda m: 1 / np.sqrt(m)),
    ("1 / {}³", lambda m: 1 / (m * m * m)),
    ("{}³", lambda m: m * m * m),
    ("({} > 0)", lambda m: np.where(np.real(m) > 0, 1.0, 0.0)),
    ("({} < 0)", lambda m: np.where(np.real(m) < 0, 1.0, 0.0)),
    ("sign({})", np.sign),
    ("|{}|", np.abs),
    ("cos {}", np.cos),
    ("sin {}", np.sin),
    ("exp {}", np.exp),
    ("exp(−{})", lambda m: np.exp(-m)),
    ("tanh {}", np.tanh),
    ("1 − tanh² {}", lambda m: 1 - np.tanh(m) ** 2),
    ("sigmoid {}", lambda m: 1 / (1 + np.exp(-m))),
    ("sigmoid(−{})", lambda m: 1 / (1 + np.exp(m))),
    ("sigmoid {} (1 − sigmoid {})", lambda m: 1 / (2 + np.exp(m) + np.exp(-m))),
    ("1 / (1 + {}²)", lambda m: 1 / (1 + m * m)),
    ("1 / √(1 − {}²)", lambda m: 1 / np.sqrt(1 - m * m)),
    ("log {}", np.log),
)


class Factor(NamedTuple):
    """A number that has the same meaning at every shape.

    Attributes:
      words: as "the batch size", "2".
      cost: how far from simple it is; 0 for 1.
      value: of it, from a program and a step.
    """

    words: str
    cost: float
    value: Callable[[Program, Step], float]


ONE = Factor("1", 0.0, lambda program, step: 1.0)
CONSTANTS = (2, 3, 4, 5, 6, 8, 10)
CLOSE = 1e-6
EXACT = 1e-9  # of a plain number
Size = Callable[[Program], int]


class Factors:
    """The numbers that have a meaning in a program: small ones, its sizes, their square roots.

    Attributes:
      sizes: (words, program -> the size) of every size of the arguments: the batch first, then each axis, then wholes.
    """

    def __init__(self, program: Program, names: list[str], fit: float):
        self.program, self.sizes = program, _sizes(program, names)
        self.exact = max(EXACT, fit if fit > CLOSE else 0.0)
        self.close = max(CLOSE, fit)
        self.known = [factor for words, size in self.sizes for factor in _of_size(words, _constant(size))]
        self.known = [*_constants(), *self.known]
        self.numbers = np.array([factor.value(program, program.steps[0]) for factor in self.known])

    def meanings(self, c: float, step: Step) -> Iterator[Factor]:
        """What a number may mean at a step, the simplest first in each sign."""
        if not np.isfinite(c) or c == 0:
            return
        near = np.flatnonzero(np.abs(self.numbers - abs(c)) <= self.close * abs(c))
        found = [self.known[i] for i in near]
        if step.name in ("reduce_sum", "dot_general"):
            terms = _of_size("the number of terms", lambda program, step: count(step), 0.8)
            found += [one for one in terms if abs(one.value(self.program, step) - abs(c)) <= self.close * abs(c)]
        # As much precision as people write down.
        rounded = float(f"{c:.4g}")
        inverse = float(f"{1 / c:.4g}")
        if abs(c - rounded) <= self.exact * abs(c):
            found.append(Factor(f"{abs(rounded):g}", 4.0, lambda program, step: abs(rounded)))
        elif abs(c * inverse - 1) <= self.exact:
            found.append(Factor(f"1 / {abs(inverse):g}", 4.0, lambda program, step: 1 / abs(inverse)))
        yield from (found if c > 0 else map(_negative, found))

    def tried(self, whole: bool) -> list[Factor]:
        """Those to try where nothing tells which it is: all, or only signs."""
        few = self.known if whole else self.known[:1]
        return [signed for one in few for signed in (one, _negative(one))]


def _negative(factor: Factor) -> Factor:
    value = factor.value
    return Factor(f"−{factor.words}", factor.cost + 0.2, lambda program, step: -value(program, step))


def _constant(size: Size) -> Callable[[Program, Step], int]:
    return lambda program, step: size(program)


def _constants() -> Iterator[Factor]:
    yield ONE
    for n in CONSTANTS:
        cost = 0.6 if n == 2 else 2.6
        yield Factor(f"{n}", cost, lambda program, step, n=n: float(n))
        yield Factor(f"1/{n}", cost, lambda program, step, n=n: 1.0 / n)
    yield Factor("3/2", 3.0, lambda program, step: 1.5)
    yield Factor("2/3", 3.0, lambda program, step: 2.0 / 3.0)


def _of_size(words: str, size: Callable[[Program, Step], int], cost: float = 1.0) -> Iterator[Factor]:
    def factor(words: str, more: float, function: Callable[[float], float]) -> Factor:
        return Factor(words, cost + more, lambda program, step: function(float(max(size(program, step), 1))))

    yield factor(words, 0, lambda n: n)
    yield factor(f"1 / {words}", 0, lambda n: 1 / n)
    yield factor(f"√({words})", 0.5, math.sqrt)
    yield factor(f"1 / √({words})", 0.5, lambda n: 1 / math.sqrt(n))
    yield factor(f"2 / {words}", 0.8, lambda n: 2 / n)
    yield factor(f"{words} / 2", 0.8, lambda n: n / 2)
    yield factor(f"({words} − 1)", 0.9, lambda n: n - 1)
    yield factor(f"1 / ({words} − 1)", 0.9, lambda n: 1 / max(n - 1, 1))
    yield factor(f"({words} − 1) / ({words})", 1.0, lambda n: (n - 1) / n)
    yield factor(f"({words}) / ({words} − 1)", 1.0, lambda n: n / max(n - 1, 1))


def _sizes(program: Program, names: list[str]) -> list[tuple[str, Size]]:
    found: list[tuple[str, Size]] = []
    outputs = range(len(program.leaves), len(program.shapes))
    batch = next((i for i in (*outputs, *range(len(program.leaves))) if program.shapes[i]), None)

    def of(position: int, axes: tuple[int, ...]) -> Size:
        return lambda program: math.prod(program.shapes[position][axis] for axis in axes)

    for position, (shape, name) in enumerate(zip(program.shapes, names, strict=True)):
        for axis, n in enumerate(shape):
            if n > 1 and axis == 0 and position == batch:
                found.insert(0, ("the batch size", of(position, (axis,))))
            elif n > 1:
                found.append((f"the length of axis {axis} of {name}", of(position, (axis,))))
        if len(shape) > 1:
            found.append((f"the number of elements of {name}", of(position, tuple(range(len(shape))))))
        if len(shape) > 3:
            found.append((f"the number of positions of {name}", of(position, tuple(range(1, len(shape) - 1)))))
        if len(shape) > 2:
            found.append((f"the number of rows of {name}", of(position, tuple(range(len(shape) - 1)))))
    return found
