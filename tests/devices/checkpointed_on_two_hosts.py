"""One process of two, with four devices each: `python checkpointed_on_two_hosts.py PORT RANK FOLDER`. Saves and
restores a state that lies on both, and prints what it finds as JSON."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

# The last count of devices is the one that counts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import jax
import numpy as np

from handgrad.training import Checkpoints, Position, Run, TrainState, connect, fully_sharded, make_mesh
from handgrad.training.interruption import interruptible


def main(port: str, rank: int, folder: Path) -> None:
    connect(f"127.0.0.1:{port}", rank, 2, timeout=60)
    layout = fully_sharded(make_mesh())

    def made(step: int) -> TrainState:
        params = {"W": np.full((16, 4), step, np.float32), "b": np.full(3, step, np.float32)}
        return TrainState(params, (), np.int32(step), jax.random.key(7))

    run = Run(folder, {"seed": 7})
    # Only the second process finds it time to save, and only the first is told to stop.
    with Checkpoints(run.checkpoints, every_seconds=1e-9 if rank else 1e9, keep=2, best="loss") as checkpoints:
        found = {"none": checkpoints.restore(layout.place(made(0))) is None, "due": checkpoints.due(1)}
        for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0), (4, 4.0)):
            run.append({"step": step, "loss": loss})
            checkpoints.save(layout.place(made(step)), Position(epoch=step), {"loss": loss})
        checkpoints.wait()
        found |= {"steps": checkpoints.steps, "best": checkpoints.best_step}
        if rank == 0:
            (run.checkpoints / "4" / "about" / "metadata").write_text("{")
        with interruptible() as flag:
            if rank == 0:
                signal.raise_signal(signal.SIGTERM)
            found["signal"] = bool(flag) and flag.signal
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            like = layout.place(made(0))
            state, position = checkpoints.restore(like) or (like, Position())
        found |= {"warnings": len(warned), "position": position.epoch, "left": checkpoints.steps}
        found["sharded"] = state.params["W"].sharding == like.params["W"].sharding
        found["parts"] = sorted({np.mean(part.data).item() for part in state.params["W"].addressable_shards})
        alone, _ = checkpoints.restore(made(0)) or (like, None)
        found["alone"] = float(np.mean(alone.params["W"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
