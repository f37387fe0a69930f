"""Training on hand-written gradients: optax steps, the two-phase update, K-FAC, epochs that survive interruption.

The digits demo is in `handgrad.training.digits`.
"""

from handgrad.training import digits as digits
from handgrad.training.checkpoints import Checkpoints as Checkpoints
from handgrad.training.epochs import NotFiniteError as NotFiniteError
from handgrad.training.evaluation import (
    EarlyStopping as EarlyStopping,
    correct as correct,
    evaluation as evaluation,
    split as split,
)
from handgrad.training.fit import fit as fit
from handgrad.training.fit_run import fit_run as fit_run
from handgrad.training.hosts import connect as connect, make_mesh as make_mesh
from handgrad.training.interruption import Interrupted as Interrupted
from handgrad.training.kfac import KfacState as KfacState, kfac_step as kfac_step, scale_by_kfac as scale_by_kfac
from handgrad.training.layouts import (
    GPT2_RULES as GPT2_RULES,
    LLAMA_RULES as LLAMA_RULES,
    Layout as Layout,
    data_parallel as data_parallel,
    fully_sharded as fully_sharded,
    tensor_parallel as tensor_parallel,
)
from handgrad.training.live_check import GradientError as GradientError
from handgrad.training.loader import Loader as Loader, by_length as by_length
from handgrad.training.position import Position as Position
from handgrad.training.runs import (
    Run as Run,
    machine as machine,
    make_folder as make_folder,
    read_metrics as read_metrics,
)
from handgrad.training.state import TrainState as TrainState, init_state as init_state
from handgrad.training.step import (
    Step as Step,
    StepOptions as StepOptions,
    train_step as train_step,
    two_phase_step as two_phase_step,
)
from handgrad.training.text import Text as Text, load_text as load_text, windows as windows
from handgrad.training.two_phase import MicroBatches as MicroBatches, update as update
