"""The curves of runs together."""

import pytest
from matplotlib.figure import Figure

from handgrad.extras import install
from handgrad.training.curves import plot_curves
from handgrad.training.runs import Run


@pytest.fixture
def runs(tmp_path):
    """Two runs, with other learning rates, numbers of epochs and metrics."""
    folders = tmp_path / "slow" / "run", tmp_path / "fast" / "run"
    for rate, epochs, folder in zip((0.1, 0.5), (3, 2), folders, strict=True):
        run = Run(folder, {"rate": rate, "seed": 0})
        for epoch in range(1, epochs + 1):
            metrics = {"loss": 1 / epoch, "held_out_loss": 2 / epoch, "held_out_accuracy": 1 - 0.5 / epoch}
            run.append({"epoch": epoch, "step": 8 * epoch, **metrics})
    return folders


def test_compare(runs, tmp_path, command_line, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **options: drawn.append(self) or save(self, *args, **options)
    )
    picture = tmp_path / "both.png"
    status, out, err = command_line("compare", *runs, "--out", picture)
    assert (status, err) == (0, "")
    *lines, last = out.splitlines()
    assert [line.split() for line in lines] == [
        ["run", "slow/run", "fast/run"],
        ["rate", "0.1", "0.5"],
        ["epoch", "3", "2"],
        ["step", "24", "16"],
        ["loss", "0.33333", "0.5"],
        ["held", "out", "loss", "0.66667", "1"],
        ["held", "out", "accuracy", "0.83333", "0.75"],
    ]
    assert last == f"written: {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")
    losses, accuracies = drawn[0].axes
    assert [losses.get_title(), losses.get_xlabel(), losses.get_ylabel()] == ["loss", "epoch", "mean loss"]
    assert accuracies.get_ylabel() == "accuracy (%)"
    assert [text.get_text() for text in losses.get_legend().get_texts()] == [
        "slow/run, held out",
        "slow/run, train",
        "fast/run, held out",
        "fast/run, train",
    ]
    drawn_accuracies = [one.get_ydata().tolist() for one in accuracies.lines]
    assert drawn_accuracies == [pytest.approx([50, 75, 250 / 3]), [50, 75]]
    assert all(tick == round(tick) for axes in drawn[0].axes for tick in axes.get_xticks())


def test_one_epoch_is_a_point(tmp_path):
    plot_curves(tmp_path / "one.svg", {"one": [{"epoch": 1, "step": 1, "loss": 1.0, "test_loss": None}]}, "one")
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")


def test_what_can_not_be_compared(runs, tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Run(tmp_path / "begun", {})
    (tmp_path / "begun" / "metrics.jsonl").touch()
    for arguments, sentence in (
        ((), "compare: runs must be folders of runs, got none"),
        (
            (tmp_path / "none",),
            "read_metrics: folder must be a run's, with metrics.jsonl as Run and fit_run write it, got",
        ),
        ((tmp_path / "begun",), "compare: runs must have metrics, got"),
        ((runs[0], runs[0]), "compare: runs must be different folders, got"),
        ((*runs, "--out", tmp_path), "compare: --out must be a file that can be written, got"),
        ((*runs, "--out", tmp_path / "new" / "a.xyz"), "compare: --out must end in one of "),
    ):
        status, out, err = command_line("compare", *arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"handgrad: {sentence}")
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = command_line("compare", *runs)
    assert (status, err) == (2, f"handgrad: compare: a picture needs matplotlib: {install('report')}\n")
    assert not (tmp_path / "compare.png").exists()
