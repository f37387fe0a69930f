"""The files of a run."""

import json

import numpy as np

from handgrad.training.digits import Split, Trained, write_report

NUMBERS = {"loss": 0.5, "train_loss": 0.4, "test_loss": 0.6, "train_accuracy": 0.9, "test_accuracy": 0.8}
TEST = Split(np.zeros((30, 4), np.float32), np.arange(30, dtype=np.int32) % 3)


def test_report(tmp_path):
    history = [{"epoch": epoch, **NUMBERS} for epoch in (1, 2)]
    trained = Trained({}, history, np.eye(3)[np.arange(30) % 3])
    paths = write_report(tmp_path, trained, TEST, "title")
    assert [path.name for path in paths] == ["metrics.jsonl", "learning_curve.png", "worst_digits.png"]
    assert [json.loads(line) for line in paths[0].read_text().splitlines()] == history
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[1:])
    assert trained.test_accuracy == 0.8
