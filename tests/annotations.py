"""Run as a program: both passes of every row of the table of cases, each annotation of `handgrad.rules` checked.

It prints the rows whose arguments, residuals or results are not what the annotations say. Shapes are enough: nothing is
compiled.
"""

import jax
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float

if __name__ == "__main__":
    with install_import_hook("handgrad.rules", "annotations.checked"):
        import handgrad.rules  # noqa: F401
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    from case_programs import by_hand, drawn

    from handgrad.cases import CASES

    for case in CASES:
        try:
            jax.eval_shape(by_hand(case), *drawn(case))
        except Exception as error:
            print(case, "-", " ".join(str(error).split())[:500])
    print(len(CASES), "rows")
