"""What a group norm's layer refuses."""

from helpers import assert_refused

from handgrad.layers import group_norm


def test_groups_is_a_positive_integer():
    for groups in (0, 2.0, None):
        sentence = f"group_norm: groups must be a positive integer, got {groups}"
        assert_refused({sentence: lambda groups=groups: group_norm(groups)})
