"""A network worked through in matrices, with its own numbers; a rule, step by step of its derivation.

`handgrad explain` on the command line; here are its parts as functions:

- `work(model, loss, params, x, target, learning_rate=…, steps=…)` trains a network and keeps every matrix;
- `derive(name)` does the four steps of a rule's derivation in numbers;
- `network_document` and `derivation_document` make documents of these, and `as_text`, `as_markdown` and `as_latex`
  write them; `to_json` is the plain data behind the page.
"""

from handgrad.explain.data import to_json as to_json
from handgrad.explain.derivation import Derivation as Derivation, derive as derive
from handgrad.explain.derived import derivation_document as derivation_document
from handgrad.explain.markup import as_latex as as_latex, as_markdown as as_markdown
from handgrad.explain.network import network_document as network_document
from handgrad.explain.text import as_text as as_text
from handgrad.explain.work import work as work
from handgrad.explain.worked import Worked as Worked
