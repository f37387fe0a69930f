"""Training on hand-written gradients: optax steps, the two-phase update, K-FAC, epochs of mini-batches.

The digits demo is in `handgrad.training.digits`.
"""

from handgrad.training.fit import fit as fit
from handgrad.training.kfac import KfacState as KfacState, kfac_step as kfac_step, scale_by_kfac as scale_by_kfac
from handgrad.training.runs import machine as machine, make_folder as make_folder
from handgrad.training.step import (
    Step as Step,
    TrainState as TrainState,
    init_state as init_state,
    train_step as train_step,
    two_phase_step as two_phase_step,
)
from handgrad.training.two_phase import MicroBatches as MicroBatches, update as update
