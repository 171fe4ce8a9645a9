"""Bands are chosen by what they are called, and the choice is said."""

import pytest

from slimdiffsr.errors import BandError
from slimdiffsr.geo.bands import BandName, choose_bands


def names(*colours: str, descriptions: tuple[str, ...] | None = None) -> list[BandName]:
    return [
        BandName(descriptions[k] if descriptions else "", colour)
        for k, colour in enumerate(colours)
    ]


def test_colour_interpretation_comes_first() -> None:
    choice = choose_bands(names("blue", "green", "red", "alpha"), None, False, 4)
    assert choice.seen == (3, 2, 1)
    assert choice.written == (3, 2, 1, 4)


@pytest.mark.parametrize(
    ("descriptions", "expected"),
    [
        (("blue", "green", "red", "nir"), (3, 2, 1)),
        (("Red Edge 1", "Green", "Blue", "Red"), (4, 2, 3)),
        (("B02", "B03", "B04", "B08"), (1, 2, 3)),  # numbers are not words
        (("vv", "vh", "angle"), (1, 2, 3)),
    ],
)
def test_descriptions_come_second_and_order_last(
    descriptions: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    colours = ("gray",) * len(descriptions)
    choice = choose_bands(names(*colours, descriptions=descriptions), None, False, None)
    assert choice.seen == expected


def test_one_and_two_bands_show_the_first_alone() -> None:
    assert choose_bands(names("gray"), None, False, None).seen == (1,)
    two = choose_bands(names("gray", "undefined"), None, False, None)
    assert two.seen == (1,)
    assert "first of two" in two.reason
    with_alpha = choose_bands(names("gray", "alpha"), None, False, 2)
    assert (with_alpha.seen, with_alpha.written) == ((1,), (1, 2))


def test_what_is_known_of_a_raster_comes_before_what_it_says() -> None:
    known = ((4, 3, 2), "bands of a sensor")
    choice = choose_bands(names("red", "green", "blue", "gray"), None, False, None, known)
    assert (choice.seen, choice.reason) == known
    assert choose_bands(names(*"wxyz"), (1, 2, 3), False, None, known).seen == (1, 2, 3)


def test_all_bands_keep_their_order() -> None:
    choice = choose_bands(names("blue", "green", "red", "undefined", "alpha"), None, True, 5)
    assert choice.seen == (3, 2, 1)
    assert choice.written == (1, 2, 3, 4, 5)
    assert choice.data == (1, 2, 3, 4)


def test_bands_asked_for_must_be_there() -> None:
    five = names("gray", "gray", "gray", "gray", "alpha")
    assert choose_bands(five, (4, 3, 2), False, 5).written == (4, 3, 2, 5)
    with pytest.raises(BandError, match="band 9 was asked for, but the raster has 5"):
        choose_bands(five, (9, 1, 2), False, 5)
    with pytest.raises(BandError, match="alpha band"):
        choose_bands(five, (5, 1, 2), False, 5)
    with pytest.raises(BandError, match="alpha band only"):
        choose_bands(names("alpha"), None, False, 1)
