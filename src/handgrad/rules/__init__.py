"""The mathematics: pure functions on arrays. One family, one file; one rule, one screen."""

from handgrad.rules.activations import *
from handgrad.rules.composition import *
from handgrad.rules.cross_entropy import *
from handgrad.rules.linear import *
from handgrad.rules.losses import *
from handgrad.rules.rectifiers import *
from handgrad.rules.self_gated import *
from handgrad.rules.softmax import *
