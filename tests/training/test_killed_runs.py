"""A run that is killed goes on with the same bits, whenever it is killed."""

import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import jax
import killed_run
import numpy as np
import pytest
from conftest import REPOSITORY

from handgrad.training import Checkpoints

pytestmark = pytest.mark.slow
KILLS = 20


@contextmanager
def started(folder):
    command = [sys.executable, str(REPOSITORY / "tests/killed_run.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process


def finished(folder):
    """What a run leaves, once it has gone to its end."""
    with started(folder) as process:
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    with Checkpoints(folder / "checkpoints", best="test_loss") as checkpoints:
        latest, best = (checkpoints.restore(killed_run.start(), best=which) for which in (False, True))
    assert (latest[0].step, latest[1].epoch) == (killed_run.STEPS, killed_run.EPOCHS)
    return (folder / "metrics.jsonl").read_bytes(), latest, best


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("whole"))


def same(one, two):
    (one, at), (two, also_at) = one, two
    bits = [jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key))) for state in (one, two)]
    return at == also_at and jax.tree.all(jax.tree.map(np.array_equal, *bits))


def reach(process, step):
    """Wait until the run is at this step; whether it got there."""
    return any(int(line) >= step for line in process.stdout)


def test_a_run_that_is_killed_again_and_again(whole, tmp_path):
    """Most often near a random step, when checkpoints are being written, and sometimes while it starts."""
    draw = random.Random(0)
    killed = 0
    for step in sorted(draw.randrange(killed_run.STEPS - 20) for _ in range(KILLS)):
        with started(tmp_path / "killed") as process:
            if draw.random() < 0.2:
                time.sleep(draw.uniform(0.2, 2.5))
            else:
                assert reach(process, step), process.stderr.read()
                time.sleep(draw.uniform(0, 0.06))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
    assert killed == KILLS
    metrics, latest, best = finished(tmp_path / "killed")
    assert metrics == whole[0]
    assert same(latest, whole[1])
    assert same(best, whole[2])
    assert len((tmp_path / "killed" / "starts.jsonl").read_bytes().splitlines()) <= KILLS + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("in_foreground")
def test_a_run_that_is_interrupted_says_so_and_goes_on(number, whole, tmp_path):
    """One sentence, 128 + the signal, and the checkpoint of the step it was at."""
    with started(tmp_path / "interrupted") as process:
        assert reach(process, 50)
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert err.startswith(f"fit: interrupted by {number.name} after step ")
    assert len(err.splitlines()) == 1
    with Checkpoints(tmp_path / "interrupted" / "checkpoints") as checkpoints:
        assert checkpoints.steps[-1] == int(err.split("after step ")[1].split(",")[0]) >= 50
    metrics, latest, _ = finished(tmp_path / "interrupted")
    assert metrics == whole[0]
    assert same(latest, whole[1])
