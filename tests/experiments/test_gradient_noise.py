"""The study of gradient noise runs, learns, and finds that the noise scale grows."""

import json

import gradient_noise


def test_the_noise_scale_grows(tmp_path):
    options = gradient_noise.Options(hidden=(16,), epochs=12, every=4, out=tmp_path)
    rows = gradient_noise.run(options)
    assert [row["epoch"] for row in rows] == [4, 8, 12]
    assert rows[-1]["cost"] < rows[0]["cost"] / 2
    assert rows[-1]["test_accuracy"] > 0.85
    assert rows[-1]["noise_scale"] > 1.3 * rows[0]["noise_scale"] > 30
    assert all(row["noise_scale"] == row["trace"] / row["sq_norm"] for row in rows)
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == rows
    assert (tmp_path / "noise_scale.png").stat().st_size > 10_000
