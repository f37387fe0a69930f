"""The examples in docstrings print what they say, as a newcomer would run them: in float32, on one device."""

import os
import subprocess
import sys

PROGRAM = """
import doctest, importlib, pkgutil
import handgrad

attempted = 0
for module in pkgutil.walk_packages(handgrad.__path__, "handgrad."):
    if not module.name.startswith("handgrad.cli"):
        result = doctest.testmod(importlib.import_module(module.name))
        attempted += result.attempted
        assert not result.failed, module.name
print(attempted)
"""


def test_examples():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout) > 0
