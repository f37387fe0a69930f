"""Collectives are read from a program as XLA writes them, counted as often as they run, and timed by the model."""

import dataclasses
import json

import pytest
import scaling
from collectives import Collective, collectives, first_group

from handgrad import InputError

PROGRAM = """
HloModule step

%body (p: f32[2]) -> f32[2] {
  %ar = (f32[4,2]{1,0}, f32[]) all-reduce(%a, %b), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %t = f32[2] copy(%p)
}

%outlined (p: f32[2]) -> f32[2] {
  ROOT %ag = bf16[8]{0} all-gather(%p), replica_groups={{0,2},{1,3}}, dimensions={0}
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %w = f32[2] while(%p), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %c = bf16[8] call(%w), to_apply=%outlined
  ROOT %rs = f32[2]{0} reduce-scatter(%c), replica_groups=mesh['x'=2,'y'=4] {'x'}, dimensions={0}
}
"""


def test_collectives_of_a_program():
    assert list(collectives(PROGRAM, 8)) == [
        Collective("all-reduce", (0, 1, 2, 3), 36, 3),
        Collective("all-gather", (0, 2), 16, 1),
        Collective("reduce-scatter", (0, 4), 16, 1),
    ]


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("replica_groups={{0,4},{1,5}}", (0, 4)),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", (0, 2)),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=4] {'a','c'}", tuple(range(8))),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", (0, 4)),
        ("replica_groups={}", tuple(range(8))),
        ("source_target_pairs={{0,3},{1,2}}", (0, 3)),
    ],
)
def test_groups_of_devices(groups, first):
    assert first_group(f"%x = f32[2] all-reduce(%p), {groups}, channel_id=1", 8) == first


def test_time_by_the_model():
    """A ring inside a host, then one of each device's share between two hosts; an all-reduce passes twice."""
    inner, outer = scaling.Link(1.0, 10.0), scaling.Link(100.0, 1.0)
    one = Collective("all-gather", tuple(range(16)), 160, 2)
    expected = 2 * (7 * (1 + 160 / 8 / 10) + (100 + 160 / 16))
    assert scaling.seconds(one, inner, outer) == pytest.approx(expected)
    assert scaling.seconds(one._replace(kind="all-reduce"), inner, outer) == pytest.approx(2 * expected)
    apart = one._replace(group=(0, 8), times=1)  # one device of each host
    assert scaling.seconds(apart, inner, outer) == pytest.approx(100 + 80)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blocks": 0}, "scaling: blocks must be a positive integer, got 0"),
        ({"heads": 6}, "scaling: heads must be a multiple of model, 4, got 6"),
        ({"rate": 0.0}, "scaling: rate must be a positive number"),
    ],
)
def test_options_that_make_no_sense(wrong, message, tmp_path):
    with pytest.raises(InputError, match=f"^{message}"):
        scaling.run(dataclasses.replace(scaling.Options(out=tmp_path / "figures.json"), **wrong))


@pytest.mark.slow
def test_a_small_model(tmp_path):
    """The compiled program communicates the formula, but for what docs/scaling.md says of XLA's CPU compiler: a
    reduce-scatter is an all-reduce; a tied table is reduced twice; query, key and value send their cotangents apart;
    one number of the loss is sent twice."""
    sizes = {"devices": (8,), "batch": 2, "tokens": 32, "width": 64, "blocks": 3, "heads": 4, "vocabulary": 256}
    rows = scaling.run(scaling.Options(**sizes, axes=("explicit", "auto"), out=tmp_path / "scaling.json"))
    assert json.loads((tmp_path / "scaling.json").read_text())["rows"] == rows
    found = {row["layout"]: row["collectives"] for row in rows if row["axes"] == "explicit"}
    assert [row["collectives"] for row in rows if row["axes"] == "auto"][:2] == [found["data"], found["fully sharded"]]
    paper = {row["layout"]: row["formula"] for row in rows}
    table, numbers = 256 * 64 * 8, 2 * 4 * 32 * 8
    for layout in ("data", "tensor"):
        gradients = paper[layout]["all-reduce, data"]["bytes"] + table + 8  # the objective's 8 bytes
        sharded = f"{layout}, fully sharded".removeprefix("data, ")
        assert {found[name]["all-reduce, data"]["bytes"] for name in (layout, sharded)} == {gradients}
    for layout in ("tensor", "tensor, fully sharded"):
        apart = 3 * 2 * 64 * numbers + numbers
        assert found[layout]["all-reduce, model"]["bytes"] == paper[layout]["all-reduce, model"]["bytes"] + apart
    assert found["fully sharded"]["all-gather, data"]["bytes"] == paper["fully sharded"]["all-gather, data"]["bytes"]
