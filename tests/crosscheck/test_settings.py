"""The settings of a check: each wrong value is refused by name, each misspelled name by the type checker."""

from dataclasses import fields
from typing import Unpack, get_type_hints

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.crosscheck import Settings, check_custom_vjp, check_function, check_layer, check_model, check_rule
from handgrad.crosscheck.evidence.transforms import CHECKS
from handgrad.crosscheck.settings import TRANSFORMS, SettingsOptions

WRONG_SETTINGS = {
    "seed": (-1, 2.0, True, "0", 2**63, None),
    "draws": (0, -1, 2.5, True, "3", np.nan, None),
    "dtype": ("float33", "int32", int, 3, jnp.float8_e4m3fn, [], object()),
    "differences": ("no", 0, None),
    "contracts": ("yes", 1, ()),
    "transforms": ("jit", ("fast",), (["jit"],), None, {"jit"}),
    "control": ("no", 0, 2.5),
    "repair": ("no", 1),
    "repair_seconds": (-1.0, np.nan, np.inf, "15", None),
    "rtol": (-1e-3, np.nan, np.inf, "1e-3", True, 1j, [1e-3]),
    "atol": (-1.0, np.nan, -np.inf, "0", None, np.ones((4, 3))),
    "nondeterminism_tolerance": (-1e-16, np.nan, "none", False),
    "search": ("deep", 1),
}


@pytest.mark.parametrize("field", WRONG_SETTINGS)
def test_settings_are_refused_by_name(field):
    for value in WRONG_SETTINGS[field]:
        with pytest.raises(ValueError, match=f"^{field} must be .*, got .*$"):
            Settings(**{field: value})


def test_every_field_is_a_keyword_of_every_check():
    assert get_type_hints(SettingsOptions) == get_type_hints(Settings)
    assert set(WRONG_SETTINGS) == {field.name for field in fields(Settings)}
    assert set(TRANSFORMS) == set(CHECKS)
    for check in (check_custom_vjp, check_function, check_layer, check_model, check_rule):
        assert get_type_hints(check)["settings"] == Unpack[SettingsOptions]
    with pytest.raises(ValueError, match="rtol"):
        check_rule(lambda x: (x, ()), lambda r, dy: (dy,), 1.0, rtol=-1.0)
    with pytest.raises(TypeError, match="tolerance"):
        check_rule(lambda x: (x, ()), lambda r, dy: (dy,), 1.0, tolerance=1e-3)


def test_settings_that_make_sense():
    for dtype in (np.float32, jnp.bfloat16, "float64", float, np.dtype("complex64"), None):
        Settings(dtype=dtype)
    Settings(np.int64(3), draws=np.int32(1), rtol=np.float32(0), atol=1, control=np.True_, transforms=["jit"])


def test_an_unknown_setting_names_the_others():
    with pytest.raises(
        TypeError, match=r"^diferences is no setting\. Did you mean differences\? The settings are seed, dr"
    ):
        check_custom_vjp(jnp.sin, None, 1.0, diferences=False)  # pyright: ignore[reportCallIssue]
