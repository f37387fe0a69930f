"""The study of private training runs; less noise is more accuracy, and ε is the accountant's."""

import json

import private_digits
import pytest

OPTIONS = {"hidden": (16,), "steps": 40}


@pytest.mark.slow
def test_more_noise_is_less_accuracy(tmp_path, monkeypatch):
    """ε in the accountant's place is 1 / σ: it is not installed everywhere."""
    monkeypatch.setattr(private_digits, "spent", lambda options, examples: lambda sigma: 1 / sigma)
    options = private_digits.Options(noise_multipliers=(40.0, 1.0), out=tmp_path, **OPTIONS)
    rows = private_digits.run(options)
    noisy, clear, plain = (row["test_accuracy"] for row in rows)
    assert noisy + 0.2 < clear < plain + 0.05
    assert clear > 0.7
    assert [row["epsilon"] for row in rows] == [1 / 40, 1.0, None]
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == rows
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


@pytest.mark.third_party
def test_the_accountant():
    """Against the Gaussian mechanism's own ε, without sampling: 4.377 at σ = 1, δ = 1e-5 (Balle and Wang 2018)."""
    pytest.importorskip("dp_accounting", reason="dp-accounting, of the extra `privacy`, is not installed")
    spent = private_digits.spent(private_digits.Options(batch=100, steps=1, delta=1e-5), 100)
    assert spent(1.0) == pytest.approx(4.377, abs=2e-3)
    sampled = private_digits.spent(private_digits.Options(batch=10, steps=1, delta=1e-5), 100)
    assert 0 < sampled(1.0) < spent(1.0)
