"""The study of K-FAC on digits: a short run, and what the page says of the published one."""

import json

import kfac_digits
from conftest import REPOSITORY


def test_a_short_run(tmp_path):
    """Both learn, K-FAC in fewer steps at these rates; the files are there."""
    options = kfac_digits.KfacDigits(
        sizes=(16,), epochs=4, adam_rates=(0.01,), kfac_rates=(0.3,), out=tmp_path, result=tmp_path / "result.json"
    )
    runs = kfac_digits.run(options)["runs"]
    adam, kfac = runs["adam"][0.01], runs["kfac"][0.3]
    assert kfac["train_loss"][-1] < adam["train_loss"][-1] < 2.3
    assert kfac["steps"] == [11, 22, 33, 44]
    assert kfac["seconds"] == sorted(kfac["seconds"])
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["best"] == {"adam": 0.01, "kfac": 0.3}
    assert (tmp_path / "kfac_digits.png").stat().st_size > 0


def test_the_page_shows_the_figures_of_the_run():
    figures = json.loads((REPOSITORY / "docs/results/kfac_digits.json").read_text())
    page = (REPOSITORY / "docs/curvature.md").read_text()
    for name, best in figures["best"].items():
        one = figures["runs"][name][str(best)]
        times = [kfac_digits.reached(one, threshold) for threshold in kfac_digits.THRESHOLDS]
        cells = [f"{pair[0]} ({pair[1]:.2f} s)" if pair else "never" for pair in times]
        assert f"{best:g} | {' | '.join(cells)} | {one['train_loss'][-1]:.1e} |" in page, name
