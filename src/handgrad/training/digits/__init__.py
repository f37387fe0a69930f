"""The digits demo: images of handwritten digits, a classifier, and the report of a run."""

from handgrad.training.digits.classifier import Options as Options
from handgrad.training.digits.classifier import Trained as Trained
from handgrad.training.digits.classifier import make_optimizer as make_optimizer
from handgrad.training.digits.classifier import train_classifier as train_classifier
from handgrad.training.digits.data import Split as Split
from handgrad.training.digits.data import load_digits as load_digits
from handgrad.training.digits.data import load_mnist as load_mnist
from handgrad.training.digits.data import read_idx as read_idx
from handgrad.training.digits.report import write_report as write_report
