"""PyTorch's local response norm, of an odd and of an even number of neighbors."""

from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules


def test_local_response_norm():
    rows = []
    for options in ({"size": 5}, {"size": 2, "alpha": 2.0, "beta": 0.5, "k": 3.0}, {"size": 9, "alpha": 0.5}):
        norm = channels_first(lambda x, options=options: F.local_response_norm(x, **options))
        rows.append((rules.local_response_norm.with_options(**options), norm, (3 * normal(2, 3, 4, 6),)))
    assert_rules_agree(rows)
