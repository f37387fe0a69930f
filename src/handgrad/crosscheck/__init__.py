"""The checker: point it at any hand-written gradient. It knows JAX and factors, and no rule."""

from handgrad.crosscheck.check import check_custom_vjp, check_function, check_layer, check_rule
from handgrad.crosscheck.model import check_model
from handgrad.crosscheck.networks import Network, check_networks
from handgrad.crosscheck.report.report import CheckFailed, Contract, Control, Repair, Report, Row
from handgrad.crosscheck.settings import Settings
from handgrad.crosscheck.torch import from_torch

__all__ = [
    "CheckFailed",
    "Contract",
    "Control",
    "Network",
    "Repair",
    "Report",
    "Row",
    "Settings",
    "check_custom_vjp",
    "check_function",
    "check_layer",
    "check_model",
    "check_networks",
    "check_rule",
    "from_torch",
]
