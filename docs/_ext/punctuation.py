"""Inline formulas stay on one line with the punctuation that touches them.

MathJax's formulas are boxes, and a browser may break a line between a box and the comma after it.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

BEFORE, AFTER = re.compile(r'[(\["“‘]+$'), re.compile(r"^[)\],.;:!?”’'\"]+(?:s\b)?|^-\w+")


class Punctuation(SphinxPostTransform):
    """A formula, and what touches it on either side, in a span of class `together`."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        for formula in list(self.document.findall(nodes.math)):
            beside = formula.parent.children
            at = next(i for i, child in enumerate(beside) if child is formula)  # equal texts are not the same text
            before, after = beside[at - 1] if at else None, beside[at + 1] if at + 1 < len(beside) else None
            opening = BEFORE.search(before) if isinstance(before, nodes.Text) else None
            closing = AFTER.search(after) if isinstance(after, nodes.Text) else None
            if not opening and not closing:
                continue
            together = beside[at] = nodes.inline("", "", classes=["together"])
            together.parent = formula.parent
            if opening:
                together += nodes.Text(opening.group())
                beside[at - 1] = nodes.Text(opening.string[: opening.start()])
            together += formula
            if closing:
                together += nodes.Text(closing.group())
                beside[at + 1] = nodes.Text(closing.string[closing.end() :])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(Punctuation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
