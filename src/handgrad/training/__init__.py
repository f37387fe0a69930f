"""Training on hand-written gradients: optax steps, the two-phase update, K-FAC, epochs of mini-batches.

The digits demo is in `handgrad.training.digits`.
"""

from handgrad.training.fit import fit as fit
from handgrad.training.kfac import KfacState as KfacState
from handgrad.training.kfac import kfac_step as kfac_step
from handgrad.training.kfac import scale_by_kfac as scale_by_kfac
from handgrad.training.runs import machine as machine
from handgrad.training.runs import make_folder as make_folder
from handgrad.training.step import TrainState as TrainState
from handgrad.training.step import init_state as init_state
from handgrad.training.step import train_step as train_step
from handgrad.training.step import two_phase_step as two_phase_step
from handgrad.training.two_phase import MicroBatches as MicroBatches
from handgrad.training.two_phase import update as update
