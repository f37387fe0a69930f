"""What a group norm's layer refuses."""

import pytest

import handgrad as hg
from handgrad import layers


@pytest.mark.parametrize("groups", [0, 2.0, None])
def test_groups_is_a_positive_integer(groups):
    with pytest.raises(hg.InputError, match=r"^group_norm: groups must be a positive integer, got "):
        layers.group_norm(groups)
