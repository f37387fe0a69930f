"""What rules refuse, as a line for each refusal."""

import re
from typing import Any

import pytest

import handgrad as hg


def refuses(rule: Any, sentence: str, *arguments: Any, **options: Any) -> None:
    """The forward pass says this, after its name, as an InputError; "…" stands for anything."""
    pattern = ".*".join(map(re.escape, sentence.split("…")))
    with pytest.raises(hg.InputError, match=rf"^{rule.__name__}_forward: {pattern}(\n|$)"):
        rule.forward(*arguments, **options)
