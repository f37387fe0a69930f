"""The study of attention's memory runs, and finds what it claims."""

import json

import attention_memory


def test_twice_the_tokens(tmp_path, capsys):
    out = tmp_path / "runs" / "memory.json"
    small, large = attention_memory.run(
        attention_memory.Options(tokens=(64, 128), heads=2, features=8, tile=16, out=out)
    )
    assert large["plain"] > 3.5 * small["plain"]
    assert large["tiled"] < 2.2 * small["tiled"]
    assert json.loads(out.read_text())["rows"] == [small, large]
    assert "plain / tiled" in capsys.readouterr().out
