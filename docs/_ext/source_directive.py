"""The directive `source`: code of the package on a page, taken from its file when the page is built.

    [`layer_norm.py`](../../../src/handgrad/rules/normalization/layer_norm.py)

    ```{source} handgrad.rules.normalization.layer_norm
    layer_norm_forward layer_norm_backward
    ```

shows these definitions without their docstrings, under a link to their lines. A name that the module doesn't define is
an error of the build. The link above the block is for a code host, which shows the names alone (code_host.py).
"""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent))
import sources


class Source(SphinxDirective):
    """The module is the argument; the names are the body, separated by white space."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        module, names = self.arguments[0], " ".join(self.content).split()
        try:
            path, pieces = sources.path_of(module), sources.shown(module, names)
        except LookupError as error:
            raise self.error(f"source: {error}") from None
        self.env.note_dependency(str(path))
        return [self.block(path, pieces)]

    def block(self, path: Path, pieces: list[sources.Shown]) -> nodes.Node:
        file = path.relative_to(sources.REPOSITORY).as_posix()
        link = nodes.reference(file, file, refuri=sources.url(path, pieces[0].line))
        code = "\n\n\n".join(piece.text for piece in pieces)
        block = nodes.literal_block(code, code, language="python")
        self.set_source_info(block)
        return nodes.container("", nodes.paragraph("", "", link, classes=["source-file"]), block, classes=["source"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("source", Source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
