"""Training on hand-written gradients: the optax step, fit, data and reports."""

from handgrad.training.classifier import Options, Trained, make_optimizer, train_classifier
from handgrad.training.data import Split, load_digits, load_mnist, read_idx
from handgrad.training.fit import fit
from handgrad.training.kfac import KfacState, kfac_step, scale_by_kfac
from handgrad.training.report import machine, make_folder, write_report
from handgrad.training.step import TrainState, init_state, train_step, two_phase_step
from handgrad.training.two_phase import MicroBatches, update

__all__ = [
    "KfacState",
    "MicroBatches",
    "Options",
    "Split",
    "TrainState",
    "Trained",
    "fit",
    "init_state",
    "kfac_step",
    "load_digits",
    "load_mnist",
    "machine",
    "make_folder",
    "make_optimizer",
    "read_idx",
    "scale_by_kfac",
    "train_classifier",
    "train_step",
    "two_phase_step",
    "update",
    "write_report",
]
