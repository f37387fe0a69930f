"""Layer = (init, forward, backward): parameters around rules, and composition."""

from handgrad.layers.activations import *
from handgrad.layers.chain import *
from handgrad.layers.layer import *
from handgrad.layers.linear import *
from handgrad.layers.losses import *
from handgrad.layers.repeat import *
from handgrad.layers.residual import *
