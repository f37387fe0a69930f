"""The library's own rules, as `handgrad check` meets them: inputs, and a reference that somebody else wrote.

No reference calls anything of handgrad: they are jax.nn's, optax's or a few lines of jax.numpy. tests/cli/
test_library.py sees to it that every rule of `handgrad.rules` has a row.
"""

from handgrad.cli.library.basics import BASICS
from handgrad.cli.library.entry import Entry as Entry
from handgrad.cli.library.nielsen import NIELSEN

LIBRARY: list[Entry] = [
    *BASICS,
    *NIELSEN,
]
