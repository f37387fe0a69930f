"""The library's own rules, as `handgrad check` meets them: inputs, and a reference that somebody else wrote.

No reference calls anything of handgrad: they are jax.nn's, optax's or a few lines of jax.numpy. tests/cli/
test_library.py sees to it that every rule of `handgrad.rules` has a row.
"""

from handgrad.cli.library.attention import ATTENTION
from handgrad.cli.library.basics import BASICS
from handgrad.cli.library.convolution import CONVOLUTION
from handgrad.cli.library.dropout import DROPOUT
from handgrad.cli.library.embedding import EMBEDDING
from handgrad.cli.library.entry import Entry as Entry
from handgrad.cli.library.gated_units import GATED_UNITS
from handgrad.cli.library.linear_algebra import LINEAR_ALGEBRA
from handgrad.cli.library.losses import LOSSES
from handgrad.cli.library.nielsen import NIELSEN
from handgrad.cli.library.normalization import NORMALIZATION
from handgrad.cli.library.recurrent import RECURRENT
from handgrad.cli.library.structure import STRUCTURE

LIBRARY: list[Entry] = [
    *ATTENTION,
    *BASICS,
    *LOSSES,
    *NIELSEN,
    *DROPOUT,
    *EMBEDDING,
    *GATED_UNITS,
    *STRUCTURE,
    *LINEAR_ALGEBRA,
    *CONVOLUTION,
    *NORMALIZATION,
    *RECURRENT,
]
