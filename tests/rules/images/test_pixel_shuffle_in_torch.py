"""PyTorch's pixel shuffle and its inverse."""

from in_torch import F, assert_rules_agree, channels_first, normal

from handgrad import rules


def test_pixel_shuffle():
    shuffle, unshuffle = rules.pixel_shuffle, rules.pixel_unshuffle
    assert_rules_agree(
        [
            (shuffle.with_options(factor=3), channels_first(lambda x: F.pixel_shuffle(x, 3)), (normal(2, 3, 2, 18),)),
            (
                unshuffle.with_options(factor=2),
                channels_first(lambda x: F.pixel_unshuffle(x, 2)),
                (normal(2, 4, 6, 3),),
            ),
        ]
    )
