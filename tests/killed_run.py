"""A small run that says each step it is at: test_killed_runs.py kills it."""

import sys

import jax
import numpy as np
import optax

import handgrad as hg
from handgrad.training import Checkpoints, Interrupted, Position, Run, batches, evaluation, fit, init_state

EPOCHS, BATCH = 16, 4
X, Y = (np.random.default_rng(seed).standard_normal((61, n)).astype(np.float32) for seed, n in ((0, 8), (1, 3)))
STEPS = EPOCHS * -(-len(X) // BATCH)
MODEL = hg.chain(hg.linear(16), hg.relu(), hg.dropout(0.3), hg.linear(3))
LOSS, ADAM = hg.squared_error(), optax.adam(1e-2)


class Told(Checkpoints):
    """Checkpoints that say when they are asked whether one is due."""

    def due(self, step, metrics=None):
        print(step, flush=True)
        return super().due(step, metrics)


def start():
    """The state before the first step."""
    return init_state(MODEL.init(jax.random.key(0), X), ADAM, jax.random.key(1))


def main(folder):
    run, evaluate = Run(folder, {"epochs": EPOCHS}), evaluation(MODEL, LOSS, {"test": (X, Y)})
    with Told(run.checkpoints, every_steps=5, keep=2, best="test_loss") as checkpoints:
        state, position = checkpoints.restore(start()) or (start(), Position())
        options = {"batch_size": BATCH, "evaluate": evaluate, "checkpoints": checkpoints, "position": position}
        if left := EPOCHS - position.epoch:
            for _, metrics in fit(MODEL, LOSS, ADAM, state, (X, Y), epochs=left, **options):
                run.append(metrics)


if __name__ == "__main__":
    batches.SECONDS = 0.0  # the host hears of each step
    try:
        main(sys.argv[1])
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(interrupted.status)
