"""The collectives of a compiled program, read from its text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1, "f64": 8, "s64": 8}
KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"


class Collective(NamedTuple):
    """Collectives of one kind among devices of one group.

    Attributes:
      kind: as XLA calls it.
      group: the devices of the first group.
      bytes: of the whole array: what an all-reduce takes, an all-gather returns, a reduce-scatter takes.
      times: how often the program runs it.
    """

    kind: str
    group: tuple[int, ...]
    bytes: int
    times: int


def collectives(program: str, devices: int) -> Iterator[Collective]:
    """The collectives of a compiled program, those in loops as often as the loop runs."""
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in program.splitlines():
        if opened := re.match(r"(ENTRY )?%([\w.\-]+) .*\{$", line):
            name = opened[2]
            bodies[name], entry = [], name if opened[1] else entry
        elif name:
            bodies[name].append(line)

    def of(name: str, times: int) -> Iterator[Collective]:
        for line in bodies[name]:
            if found := re.search(rf"= (.*?) ({KINDS})(-start)?\(", line):
                group = first_group(line, devices)
                size = bytes_of(found[1]) * (len(group) if found[2] == "reduce-scatter" else 1)
                yield Collective(found[2], group, size, times)
            elif " while(" in line:
                count = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                body = re.search(r"body=%([\w.\-]+)", line)
                assert body is not None
                yield from of(body[1], times * (int(count[1]) if count else 1))
            elif called := re.search(r" call\(.*to_apply=%([\w.\-]+)", line):
                yield from of(called[1], times)

    return of(entry, 1)


def bytes_of(result: str) -> int:
    """The bytes of an HLO type, of all parts of a tuple."""
    parts = re.findall(r"(\w+)\[([\d,]*)\]", result)
    return sum(BYTES[kind] * math.prod(int(n) for n in sizes.split(",") if n) for kind, sizes in parts)


def first_group(line: str, devices: int) -> tuple[int, ...]:
    """The devices of the first group of a collective, in any of the forms that XLA writes."""
    ids = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}", line)
    if ids:
        return tuple(int(n) for n in ids[1].split(","))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", line):
        return tuple(iota_of(iota[3]).reshape(int(iota[1]), int(iota[2]))[0].tolist())
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? ?\{([^}]*)\}", line):
        sizes = {name: int(n) for name, n in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        places = iota_of(mesh[2] or f"[{math.prod(sizes.values())}]").reshape(*sizes.values())
        names = re.findall(r"'(\w+)'", mesh[3])
        return tuple(np.ravel(places[tuple(slice(None) if name in names else 0 for name in sizes)]).tolist())
    if "replica_groups={}" in line:
        return tuple(range(devices))
    raise ValueError(f"the devices of a collective are written in a form that isn't known: {line.strip()}")


def iota_of(text: str) -> np.ndarray:
    """The numbers of "[2,4]T(1,0)": 0 … 7 in two rows, transposed."""
    found = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    assert found is not None
    sizes, order = found.groups()
    places = np.arange(math.prod(map(int, sizes.split(",")))).reshape([int(n) for n in sizes.split(",")])
    return places.transpose([int(n) for n in order.split(",")]) if order else places
