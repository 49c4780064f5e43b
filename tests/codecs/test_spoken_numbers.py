from __future__ import annotations

import pytest

from conjure.codecs import spoken_numbers as numbers


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "zero"),
        (7, "seven"),
        (13, "thirteen"),
        (20, "twenty"),
        (42, "forty two"),
        (100, "one hundred"),
        (205, "two hundred five"),
        (1000, "one thousand"),
        (12_345, "twelve thousand three hundred forty five"),
        (1_000_001, "one million one"),
        (-3, "minus three"),
        (10**15, " ".join(["one", *["zero"] * 15])),
    ],
)
def test_cardinals(number: int, said: str) -> None:
    assert numbers.cardinal(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "first"),
        (2, "second"),
        (3, "third"),
        (8, "eighth"),
        (9, "ninth"),
        (12, "twelfth"),
        (20, "twentieth"),
        (21, "twenty first"),
        (100, "one hundredth"),
        (111, "one hundred eleventh"),
    ],
)
def test_ordinals(number: int, said: str) -> None:
    assert numbers.ordinal(number) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at 12:30", "at twelve thirty"),
        ("9:05", "nine oh five"),
        ("10:00", "ten o'clock"),
        ("15:00", "fifteen hundred"),
        ("00:00", "midnight"),
        ("10:00 PM", "ten pee em"),
        ("9 a.m.", "nine ay em"),
        ("7:15:20", "seven fifteen and twenty seconds"),
        ("2026-11-21", "November twenty first, twenty twenty six"),
        ("11/21/2026", "November twenty first, twenty twenty six"),
        ("21/11/2026", "November twenty first, twenty twenty six"),
        ("Nov. 21, 2026", "November twenty first, twenty twenty six"),
        ("3 May 1905", "the third of May, nineteen oh five"),
        ("in 1984", "in nineteen eighty four"),
        ("in 2000", "in two thousand"),
        ("in 1900", "in nineteen hundred"),
        ("the 1990s", "the nineteen nineties"),
        ("the '80s", "the eighties"),
        ("1914-1918", "nineteen fourteen to nineteen eighteen"),
    ],
)
def test_times(text: str, said: str) -> None:
    assert " ".join(numbers.numbers_spoken(text).split()) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("$3.50", "three dollars and fifty cents"),
        ("$1", "one dollar"),
        ("$0.05", "five cents"),
        ("£2 million", "two million pounds"),
        ("£1.01", "one pound and one penny"),
        ("5 €", "five euros"),
        ("¥500", "five hundred yen"),
        ("$0", "zero dollars"),
        ("5 km", "five kilometers"),
        ("1 km", "one kilometer"),
        ("90 km/h", "ninety kilometers per hour"),
        ("6 ft", "six feet"),
        ("20°C", "twenty degrees Celsius"),
        ("16 GB", "sixteen gigabytes"),
        ("50 Hz", "fifty hertz"),
        ("3 m²", "three square meters"),
        ("45%", "forty five percent"),
        ("1/2", "one half"),
        ("3/4", "three quarters"),
        ("2/3", "two thirds"),
        ("3 3/4", "three and three quarters"),
        ("22/7", "twenty two sevenths"),
        ("21st", "twenty first"),
        ("102nd", "one hundred second"),
        ("3.14", "three point one four"),
        ("-5", "minus five"),
        ("10-20", "ten to twenty"),
        ("2.1.3", "two point one point three"),
        ("1,250,000", "one million two hundred fifty thousand"),
        ("007", "zero zero seven"),
        ("555-1234", "five five five, one two three four"),
        ("no digits", "no digits"),
    ],
)
def test_quantities(text: str, said: str) -> None:
    assert " ".join(numbers.numbers_spoken(text).split()) == said


def test_nothing_with_a_digit_is_left() -> None:
    for text in ("99/99/9999", "1" * 40, "25:99", "1.2.3.4.5", "0x1F", "3e8", "12,34", "٣"):
        assert not any(each in "0123456789" for each in numbers.numbers_spoken(text)), text


def test_roman() -> None:
    assert [numbers.roman(each) for each in ("I", "IV", "VIII", "XIX", "XL", "XCIX", "CCC")] == [
        1,
        4,
        8,
        19,
        40,
        99,
        300,
    ]
    assert numbers.roman("IIII") == numbers.roman("VX") == 0
