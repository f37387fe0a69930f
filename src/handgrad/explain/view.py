"""What the page shows of the first step: numbers as text, matrices as tables of colored cells."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from math import isfinite
from typing import Any, NamedTuple

from handgrad.explain.matrix import NOISE

DIGITS = Context(prec=4, rounding=ROUND_HALF_UP)  # as JavaScript's toPrecision rounds
NOT_FINITE = {"nan": "NaN", "inf": "∞", "-inf": "−∞"}
MOST_PRODUCTS = 6  # outer products in a row; of more examples, the first three and the last
MOST_LOSSES = 8

Path = tuple[str | int, ...]
Rows = list[list[Any]]


class Cell(NamedTuple):
    """An entry as it is shown: its text, and how strongly it is colored, from −100 (orange) to 100 (blue)."""

    text: str
    tint: int


class Table(NamedTuple):
    """A matrix as it is shown; of a large one, a corner and a few words about the whole."""

    shape: str
    rows: list[list[Cell]]
    about: str
    more_rows: bool
    more_columns: bool


def number(value: float | str) -> str:
    """`value` to four significant digits."""
    value = float(value)
    if not isfinite(value):
        return NOT_FINITE[str(value)]
    rounded = DIGITS.create_decimal_from_float(value).normalize()
    if not rounded:
        return "0"
    text = f"{rounded:f}" if -4 <= rounded.adjusted() < 6 else f"{rounded:e}".replace("e+", "e")
    return text.replace("-", "−")


def numbers(rows: Rows) -> list[list[str]]:
    """The entries of a matrix with as many decimals each: four significant digits in the largest, two in the smallest;
    zeros that all of them end in are left out. Where that takes too many, each has four digits."""
    rows = quiet(rows)
    values = [abs(_float(entry)) for row in rows for entry in row]
    sizes = [Decimal(value).adjusted() for value in values if value and isfinite(value)]
    decimals = max(0, 3 - max(sizes, default=0), 1 - min(sizes, default=0))
    if not all(map(isfinite, values)) or not sizes or max(sizes) > 5 or decimals + max(0, *sizes) > 6:
        return [[number(entry) for entry in row] for row in rows]
    texts = [[_fixed(_float(entry), decimals) for entry in row] for row in rows]
    while decimals and all(text.endswith("0") for row in texts for text in row):
        decimals -= 1
        texts = [[text[:-1].removesuffix(".") for text in row] for row in texts]
    return [[text.replace("-", "−") for text in row] for row in texts]


def _fixed(value: float, decimals: int) -> str:
    """As JavaScript's toFixed rounds."""
    rounded = Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    return f"{rounded if rounded else abs(rounded):f}"


@dataclass(frozen=True)
class View:
    """The first step of the chosen run, as the template asks for it. A path leads to a matrix: ("layers", 0, "X")."""

    data: dict[str, Any]

    @property
    def run(self) -> dict[str, Any]:
        """The run at the chosen learning rate."""
        return self.data["runs"][self.data["rate"]]

    def at(self, path: Path) -> Any:
        """What the first step holds at `path`."""
        return _at(self.run["steps"][0], path)

    def table(self, path: Path, example: int | None = None) -> Table:
        """The matrix at `path`; with `example`, this example's outer product, which adds up to it."""
        step, matrix = self.run["steps"][0], self.at(path)
        rows = _rows(matrix) if example is None else self._products(step, path)[example]
        if isinstance(matrix, list):
            more = len(matrix) > MOST_LOSSES
            return Table(f"{len(matrix)} × 1", self._cells(path, rows)[:MOST_LOSSES], "", more, False)
        shape = matrix["shape"]
        about = ""
        if "summary" in matrix and example is None:
            low, high, mean = (number(matrix["summary"][name]) for name in ("min", "max", "mean"))
            about = f"from {low} to {high}, mean {mean}"
        columns = len(rows[0]) if rows else 0
        count = 1
        for axis in shape[:-1]:
            count *= axis
        return Table(
            " × ".join(map(str, shape)), self._cells(path, rows), about, count > len(rows), shape[-1] > columns
        )

    def examples(self, path: Path) -> list[int | None]:
        """The examples whose outer products are shown beside the gradient at `path`; None where some are left out."""
        count = len(self._products(self.run["steps"][0], path))
        return [*range(count)] if count <= MOST_PRODUCTS else [0, 1, 2, None, count - 1]

    def kind(self, layer: int, name: str) -> str:
        """How the parameter's gradient is made: "outer" for AᵀΔ, "total" for Δᵀ1, else ""."""
        gradient = self.at(("layers", layer, "grads", name))
        if name in self.data["layers"][layer]["outer"]:
            return "outer"
        shape, delta = gradient["value"]["shape"], gradient.get("Delta")
        is_total = gradient.get("A") is None and delta and shape == [delta["shape"][-1], 1]
        return "total" if is_total and "data" in delta else ""

    def is_same(self, path: Path, other: Path) -> bool:
        """Whether two matrices are one: A is often the layer's input."""
        return self.at(path) == self.at(other)

    def key(self, layer: int, name: str) -> str:
        """The result, covered in the quiz, that the layer's `name` repeats: a layer's X is the Y of the one before."""
        if name == "X":
            return f"{layer - 1}.Y" if layer else ""
        if name == "dY":
            return f"{layer + 1}.dX" if layer + 1 < len(self.data["layers"]) else ""
        return f"{layer}.{name}"

    def is_narrow(self, layer: int | None) -> bool:
        """Whether a layer's input, parameters and output, or those of the loss, fit side by side on a phone."""
        step = self.at(("layers", -1 if layer is None else layer))
        of_loss = [self.at(("target",)), *self.at(("parts",)).values()]
        through = [*step["params"].values()] if layer is not None else of_loss
        sides = [step["X"], step["Y"]] if layer is not None else [step["Y"]]
        columns = [len(_rows(matrix)[0]) for matrix in sides]
        return sum(columns) + max((len(_rows(matrix)[0]) for matrix in through), default=1) <= 3

    def backward(self, layer: int) -> tuple[list[dict[str, str]], dict[str, dict[str, str]]]:
        """The layer's backward equations: those of its cotangents in order, and that of each parameter by its name."""
        spec = self.data["layers"][layer]
        of = {equation["of"]: equation for equation in spec["backward"]}
        params = {name: of.pop("d" + name) for name in spec["params"] if "d" + name in of}
        return [*of.values()], params

    def _cells(self, path: Path, rows: Rows) -> list[list[Cell]]:
        peak = self._peak(path)
        both = zip(numbers(rows), quiet(rows), strict=True)
        return [[Cell(text, tint(entry, peak)) for text, entry in zip(*row, strict=True)] for row in both]

    def _products(self, step: dict[str, Any], path: Path) -> list[Rows]:
        """Each example's outer product a_bᵀ δ_b, which add up to the gradient at `path`; [] where it is no such sum."""
        if len(path) != 5 or path[4] != "value" or path[3] not in self.data["layers"][path[1]]["outer"]:
            return []
        gradient = _at(step, path[:-1])
        A, Delta = (gradient[side].get("data") for side in ("A", "Delta"))
        batch = self.data["batch"]
        if not A or not Delta or len(A) % batch:
            return []
        corner = _rows(gradient["value"])
        each = len(A) // batch
        return [
            [
                [sum(_float(A[r][i]) * _float(Delta[r][j]) for r in examples) for j in range(len(row))]
                for i, row in enumerate(corner)
            ]
            for examples in (range(b * each, (b + 1) * each) for b in range(batch))
        ]

    def _peak(self, path: Path) -> float:
        """The largest size that an entry takes: over the whole run, so that a gradient fades as the weights arrive;
        in this step alone if the run diverges."""
        steps = self.run["steps"][:1] if self.run["diverged"] else self.run["steps"]
        entries = (
            abs(_float(entry))
            for step in steps
            for rows in (_rows(_at(step, path)), *self._products(step, path))
            for row in rows
            for entry in row
        )
        return max((entry for entry in entries if isfinite(entry)), default=0.0)


def tint(entry: float | str, peak: float) -> int:
    """How strongly an entry is colored: its sign, and the root of its share of `peak`, so that small ones are seen."""
    value = _float(entry)
    if not isfinite(value) or value == 0 or peak == 0:
        return 0
    size = int(10 + 90 * min(1.0, abs(value) / peak) ** 0.5 + 0.5)
    return size if value > 0 else -size


def quiet(rows: Rows) -> Rows:
    """The rounding of sums that are zero as 0, as in `matrix.without_noise`."""
    sizes = (abs(_float(entry)) for row in rows for entry in row)
    noise = NOISE * max((size for size in sizes if isfinite(size)), default=0.0)
    return [[0.0 if abs(_float(entry)) < noise else entry for entry in row] for row in rows]


def _at(step: Any, path: Path) -> Any:
    for key in path:
        step = step[key]
    return step


def _rows(matrix: Any) -> Rows:
    """The entries that are shown: of a summary, its corner; of a list, a column."""
    if isinstance(matrix, list):
        return [[entry] for entry in matrix]
    return matrix["data"] if "data" in matrix else matrix["summary"]["corner"]


def _float(entry: float | str) -> float:
    return float(entry)
