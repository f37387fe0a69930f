"""A network worked through in matrices, with its own numbers; a rule, step by step of its derivation.

`handgrad explain` on the command line; here are its parts as functions.
"""

from handgrad.explain.data import to_json as to_json
from handgrad.explain.network import network_document as network_document
from handgrad.explain.work import work as work
from handgrad.explain.worked import Worked as Worked
