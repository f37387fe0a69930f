"""The study of linear_cross_entropy's memory runs, and its published figures show what docs say."""

import dataclasses
import json

import linear_cross_entropy_memory as study
from conftest import REPOSITORY

SMALL = study.Options(tokens=(64, 256), classes=512, n_in=4, chunk=32, repeats=1)


def test_memory_does_not_grow_with_the_tokens(tmp_path, capsys):
    out = tmp_path / "figures.json"
    few, many = study.run(dataclasses.replace(SMALL, out=out))
    assert many["whole_temp_bytes"] > 3 * few["whole_temp_bytes"]
    assert many["chunked_temp_bytes"] < 1.2 * few["chunked_temp_bytes"]
    assert many["temp_ratio"] < 0.2
    assert max(row["largest_error"] for row in (few, many)) < 1e-5
    assert json.loads(out.read_text())["rows"] == [few, many]
    assert "memory ratio" in " ".join(capsys.readouterr().out.split())


def test_docs_quote_the_published_figures():
    figures = json.loads((REPOSITORY / "docs/results/linear_cross_entropy.json").read_text())
    page = (REPOSITORY / "docs/derivations/losses/linear_cross_entropy.md").read_text()
    assert [row["tokens"] for row in figures["rows"]] == [512, 1024, 2048, 4096]
    for row in figures["rows"]:
        sizes = f"{row['whole_temp_bytes'] / 1e6:.1f} MB | {row['chunked_temp_bytes'] / 1e6:.1f} MB"
        ratios = f"{row['temp_ratio']:.3f} | {row['time_ratio']:.2f} | {row['largest_error']:.1e}"
        assert f"| {row['tokens']:,} | {sizes} | {ratios} |" in page
