"""The digits demo: images of handwritten digits, a classifier, and the report of a run."""

from handgrad.training.digits.classifier import (
    Options as Options,
    Trained as Trained,
    make_optimizer as make_optimizer,
    train_classifier as train_classifier,
)
from handgrad.training.digits.data import (
    Split as Split,
    load_digits as load_digits,
    load_mnist as load_mnist,
    read_idx as read_idx,
)
from handgrad.training.digits.report import write_report as write_report
