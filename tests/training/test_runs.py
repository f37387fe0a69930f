"""A run's folder: enough to understand the run, resumed or refused, never overwritten."""

import json
import shlex
import sys
import time

import jax
import numpy as np
import pytest

from handgrad import InputError
from handgrad.training import machine, make_folder
from handgrad.training.runs import Run, read_config, read_metrics

CONFIG = {"rate": 0.1, "sizes": (3, 5), "epochs": 2}


def line(epoch, **metrics):
    return {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, **metrics}


def test_a_runs_folder(tmp_path):
    run = Run(tmp_path / "new", CONFIG)
    run.append({**line(1), "step": np.int32(10), "test_loss": np.float32(0.5)})
    run.append(line(2, test_loss=float("nan")))
    written = [json.loads(one) for one in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert written == read_metrics(run.folder) == [line(1, test_loss=0.5), line(2, test_loss=None)]
    assert read_config(run.folder) == {"rate": 0.1, "sizes": [3, 5], "epochs": 2}
    (start,) = (json.loads(one) for one in (run.folder / "starts.jsonl").read_text().splitlines())
    assert machine().keys() < start.keys()
    assert {"handgrad", "jax", "optax"} <= start["versions"].keys()
    assert start["command"] == shlex.join(sys.orig_argv)
    assert run.checkpoints == tmp_path / "new" / "checkpoints"
    with pytest.raises(InputError, match="metrics must have a step, got loss"):
        run.append({"loss": 1.0})


def test_a_run_is_resumed(tmp_path):
    """Lines after the checkpoint that it goes on from, and one that was cut off, are written again; none is lost."""
    run = Run(tmp_path, CONFIG)
    for epoch in (1, 2, 3):
        run.append(line(epoch))
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"epoch": 4, "st')
    assert read_metrics(tmp_path) == [line(epoch) for epoch in (1, 2, 3)]
    resumed = Run(tmp_path, CONFIG | {"epochs": 3}, may_change=("epochs",))
    for epoch in (2, 3):
        resumed.append(line(epoch))
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert read_config(tmp_path) == {"rate": 0.1, "sizes": [3, 5], "epochs": 3}  # as in the last start
    with (tmp_path / "starts.jsonl").open("a") as file:
        file.write("{")
    assert read_config(tmp_path)["epochs"] == 3
    starts = [json.loads(one) for one in (tmp_path / "starts.jsonl").read_text().splitlines()[:2]]
    assert [start["options"] for start in starts] == [{}, {"epochs": 3}]


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (CONFIG | {"rate": 0.2}, "its rate is 0.1, this one's 0.2"),
        (CONFIG | {"seed": 0}, "its seed is missing, this one's 0"),
        ({"rate": 0.1, "sizes": (3, 5)}, "its epochs is 2, this one's missing"),
    ],
)
def test_another_run_is_refused(config, difference, tmp_path):
    Run(tmp_path, CONFIG)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=rf"Run: .* holds another run: {difference}$"):
        Run(tmp_path, config)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_is_not_a_runs_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"folder must be new, empty or a run's, got .*, which holds thesis.tex"):
        Run(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text('{"rate": ')
    with pytest.raises(InputError, match="can't be resumed or written"):
        Run(tmp_path, CONFIG)
    with pytest.raises(InputError, match="config must be what JSON can hold, got for 'f': Object of type"):
        Run(tmp_path / "new", {"rate": 0.1, "f": len})
    with pytest.raises(
        InputError, match=r"folder must be a run's, with metrics.jsonl as Run .* write it, got .* \(No such file"
    ):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\nnothing\n")
    with pytest.raises(InputError, match="must have JSON in each line"):
        read_metrics(tmp_path)


@pytest.mark.slow
def test_tensorboard(tmp_path, monkeypatch):
    """What it has of steps that are taken again is hidden."""
    pytest.importorskip("tensorboardX")
    run = Run(tmp_path, CONFIG, tensorboard=True)
    for epoch in (1, 2):
        run.append(line(epoch, test_loss=float("nan")))
    Run(tmp_path, CONFIG, tensorboard=True).append(line(2))
    files, give_up = tmp_path / "tensorboard", time.monotonic() + 20
    while [path.read_bytes().count(b"loss") for path in sorted(files.iterdir())] != [2, 1]:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r"tensorboard needs tensorboardX: .*pip install .*\[tensorboard\]'"):
        Run(tmp_path / "other", CONFIG, tensorboard=True)
    assert not (tmp_path / "other").exists()


def test_of_several_processes_the_first_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    Run(tmp_path / "new", CONFIG).append(line(1))
    assert not (tmp_path / "new").exists()


def test_a_folder_is_made_and_must_be_writable(tmp_path):
    assert make_folder(tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"the output folder must be one that can be written, got .*file"):
        make_folder(tmp_path / "file" / "inside")


def test_the_machine():
    assert machine().keys() == {"date", "device", "cores", "jax", "python"}
    assert machine()["jax"] == jax.__version__
