"""The study of attention's memory runs, and finds what it claims."""

import json

import attention_memory
import pytest

from handgrad import InputError


def test_twice_the_tokens(tmp_path, capsys):
    out = tmp_path / "runs" / "memory.json"
    small, large = attention_memory.run(
        attention_memory.Options(tokens=(64, 128), heads=2, features=8, tile=16, out=out)
    )
    assert large["plain"] > 3.5 * small["plain"]
    assert large["tiled"] < 2.2 * small["tiled"]
    found = json.loads(out.read_text())
    assert found["rows"] == [small, large]
    assert {"date", "device", "jax"} <= found.keys()
    assert "plain / tiled" in capsys.readouterr().out


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="attention_memory: tokens must be a positive integer, got 0"):
        attention_memory.run(attention_memory.Options(tokens=(0,), out=tmp_path / "memory.json"))
