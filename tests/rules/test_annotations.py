"""The annotations of rules are true: every row of the table of cases runs through them under jaxtyping's import hook.

    python tests/rules/test_annotations.py [family ...]

runs it for a few families. In a process of its own, since the hook must come before the package.
"""

import subprocess
import sys

import pytest


def main(families: list[str]) -> int:
    """The number of rows whose passes contradict their annotations; each is printed."""
    import jax
    from jaxtyping import install_import_hook

    # An int is a float, as in PEP 484.
    checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    with install_import_hook("handgrad.rules", checker):
        from handgrad.cases import FAMILIES

    jax.config.update("jax_enable_x64", True)
    wrong = 0
    for case in [case for family in families or FAMILIES for case in FAMILIES[family].CASES]:

        def run(*arguments, case=case):
            Y, residuals = case.settled.forward(*arguments)
            return case.settled.backward(residuals, Y)

        try:
            jax.eval_shape(run, *jax.tree.map(jax.numpy.asarray, case.arguments()))
        except Exception as error:
            wrong += 1
            print(f"{case}\n    " + str(error)[:800].replace("\n", "\n    "))
    return wrong


@pytest.mark.slow
def test_every_row_under_its_annotations():
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 100))
