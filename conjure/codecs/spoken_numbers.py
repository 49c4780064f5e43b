"""Numbers, dates, times, money and units as people read them aloud in American English. Pure functions of strings."""

from __future__ import annotations

import re

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_GROUPS = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
             "twelve": "twelfth"}  # fmt: skip
LONGEST = 15
"""Digits of a number that is said as one; longer ones are said digit by digit."""
MONTHS = (
    "January February March April May June July August September October November December"
).split()
CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", ""),
              "US$": ("dollar", "cent")}  # fmt: skip
UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "mi": "mile", "ft": "foot", "yd": "yard",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce",
    "l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "s": "second", "sec": "second",
    "ms": "millisecond", "min": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "W": "watt", "kW": "kilowatt",
    "MW": "megawatt", "kWh": "kilowatt hour", "V": "volt", "Hz": "hertz", "kHz": "kilohertz",
    "MHz": "megahertz", "GHz": "gigahertz", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "MiB": "mebibyte", "GiB": "gibibyte", "kbit": "kilobit", "Mbit": "megabit",
    "dB": "decibel", "Pa": "pascal", "hPa": "hectopascal", "kJ": "kilojoule", "kcal": "kilocalorie",
    "mph": "mile per hour", "km/h": "kilometer per hour", "kph": "kilometer per hour", "m/s": "meter per second",
    "kbit/s": "kilobit per second", "Mbit/s": "megabit per second", "fps": "frame per second", "°C": "degree Celsius",
    "°F": "degree Fahrenheit", "°": "degree", "m²": "square meter", "km²": "square kilometer", "m³": "cubic meter",
}  # fmt: skip
_UNCHANGED = {"hertz", "kilohertz", "megahertz", "gigahertz"}
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = "|".join(f"{name[:3]}\\.|{name}" if name != "May" else name for name in MONTHS) + "|Sept\\."
_UNIT = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALES = "hundred|thousand|million|billion|trillion"


def cardinal(number: int) -> str:
    """"two hundred five"; what has more than `LONGEST` digits is said digit by digit."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number >= 10**LONGEST:
        return digits(str(number))
    if number < 1000:
        return _below_thousand(number)
    parts, group = [], 0
    while number:
        number, rest = divmod(number, 1000)
        if rest:
            parts.append(f"{_below_thousand(rest)} {_GROUPS[group]}".strip())
        group += 1
    return " ".join(reversed(parts))


def ordinal(number: int) -> str:
    """"twenty-first" without its hyphen."""
    *front, last = cardinal(number).split()
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*front, last])


def digits(text: str) -> str:
    """Each digit by its name."""
    return " ".join(_SMALL[int(each)] for each in text if each.isdigit())


def year(number: int) -> str:
    """"nineteen oh five", "two thousand six", "twenty twenty six"."""
    high, low = divmod(number, 100)
    if number < 1000 or number > 2099 or 2000 <= number <= 2009:
        return cardinal(number)
    if not low:
        return f"{cardinal(high)} hundred"
    return f"{cardinal(high)} {'oh ' if low < 10 else ''}{cardinal(low)}"


def decimal(text: str) -> str:
    """"3.05" or "1,250": a point, and digit by digit behind it; zeros in front are said."""
    whole, _, part = text.replace(",", "").partition(".")
    if len(whole) > LONGEST or (len(whole) > 1 and whole[0] == "0"):
        said = digits(whole)
    else:
        said = cardinal(int(whole or 0))
    return f"{said} point {digits(part)}" if part else said


def money(sign: str, amount: str, scale: str = "") -> str:
    """"three dollars and fifty cents", "two million euros"."""
    name, small = CURRENCIES[sign]
    if scale:
        return f"{decimal(amount)} {scale} {_many(name, 2)}"
    whole, _, part = amount.replace(",", "").partition(".")
    if len(part) not in (0, 2) or (part and not small):
        return f"{decimal(amount)} {_many(name, 2)}"
    first, second = int(whole), int(part or 0)
    said = f"{cardinal(first)} {_many(name, first)}" if first or not second else ""
    more = f"{cardinal(second)} {_many(small, second)}" if second else ""
    return " and ".join(each for each in (said, more) if each)


def clock(hour: int, minute: int) -> str:
    """"nine oh five", "ten o'clock", "fifteen hundred"."""
    if not minute:
        if not hour:
            return "midnight"
        return f"{cardinal(hour)} hundred" if hour > 12 else f"{cardinal(hour)} o'clock"
    return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"


def quantity(amount: str, unit: str) -> str:
    """"5", "km" -> "five kilometers"."""
    return f"{decimal(amount)} {_many(UNITS[unit], 1 if amount == '1' else 2)}"


def fraction(above: int, below: int) -> str:
    """"three quarters", "one half"; what has no common name is "over"."""
    if below == 2:
        return f"{cardinal(above)} {'half' if above == 1 else 'halves'}"
    if below == 4:
        return f"{cardinal(above)} {'quarter' if above == 1 else 'quarters'}"
    if below > 20 or below < 2:
        return f"{cardinal(above)} over {cardinal(below)}"
    return f"{cardinal(above)} {ordinal(below)}{'' if above == 1 else 's'}"


def roman(text: str) -> int:
    """The number that Roman digits write; 0 where they do not."""
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
    if not re.fullmatch(r"C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})", text):
        return 0
    total = 0
    for here, after in zip(text, [*text[1:], ""]):
        total += -values[here] if after and values[after] > values[here] else values[here]
    return total


def numbers_spoken(text: str) -> str:
    """A text in which everything with a digit is words."""
    for pattern, said in _RULES:
        text = pattern.sub(said, text)
    return text


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    parts = [f"{_SMALL[hundreds]} hundred"] if hundreds else []
    if rest >= 20:
        parts += [_TENS[rest // 10]] + ([_SMALL[rest % 10]] if rest % 10 else [])
    elif rest or not hundreds:
        parts.append(_SMALL[rest])
    return " ".join(parts)


def _many(name: str, number: int) -> str:
    if number == 1 or name in _UNCHANGED or name in ("", "yen"):
        return name
    irregular = {"foot": "feet", "penny": "pence"}
    first, _, rest = name.partition(" ")
    if first in ("square", "cubic"):
        return f"{first} {_many(rest, number)}"
    if first == "kilowatt" and rest == "hour":
        return "kilowatt hours"
    return f"{irregular.get(first, first + 's')} {rest}".strip()


def _month(text: str) -> str:
    return next(name for name in MONTHS if name.startswith(text[:3]))


def _iso(found: re.Match[str]) -> str:
    y, m, d = map(int, found.groups())
    return f"{MONTHS[m - 1]} {ordinal(d)}, {year(y)}"


def _slashed(found: re.Match[str]) -> str:
    a, b, y = map(int, found.groups())
    m, d = (a, b) if a <= 12 else (b, a)  # month first, as in American English, unless it cannot be
    return f"{MONTHS[m - 1]} {ordinal(d)}, {year(y)}" if 1 <= m <= 12 else found.group()


def _month_day(found: re.Match[str]) -> str:
    month, day, y = found.groups()
    return f"{_month(month)} {ordinal(int(day))}{f', {year(int(y))}' if y else ''}"


def _day_month(found: re.Match[str]) -> str:
    day, month, y = found.groups()
    return f"the {ordinal(int(day))} of {_month(month)}{f', {year(int(y))}' if y else ''}"


def _time(found: re.Match[str]) -> str:
    hour, minute, second, half = int(found[1]), int(found[2]), found[3], found[4]
    said = clock(hour, minute)
    if half and not minute:
        said = cardinal(hour)
    if second:
        said += f" and {cardinal(int(second))} seconds"
    return f"{said} {_half(half)}" if half else said


def _half(text: str) -> str:
    return "ay em" if text[0].lower() == "a" else "pee em"


def _ending(number: str) -> str:
    """The last sound as more than one: "twenties"."""
    return number[:-1] + "ies" if number.endswith("y") else number + "s"


def _decade(found: re.Match[str]) -> str:
    number = int(found[1])
    if number % 100 == 0:
        return f"{year(number)}s" if number != 2000 else "two thousands"
    return _ending(year(number))


def _short_decade(found: re.Match[str]) -> str:
    return _ending(cardinal(int(found[1])))


def _range(found: re.Match[str]) -> str:
    return " to ".join(_plain(each).strip() for each in (found[1], found[3]))


def _plain(text: str) -> str:
    if len(text) == 4 and text.isdigit() and 1100 <= int(text) <= 2099:
        return f" {year(int(text))} "
    return f" {decimal(text)} "


_RULES = tuple(
    (re.compile(pattern), said)
    for pattern, said in (
        (r"\b(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b", _iso),
        (r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", _slashed),
        (rf"\b({_MONTH}) ({_DAY})(?:st|nd|rd|th)?\b(?:,? (\d{{4}})\b)?", _month_day),
        (rf"\b({_DAY})(?:st|nd|rd|th)? (?:of )?({_MONTH})(?:,? (\d{{4}})\b)?", _day_month),
        (r"\b([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?: ?([AaPp]\.? ?[Mm])\b\.?)?", _time),
        (r"\b(\d{1,2}) ?([AaPp])\.? ?[Mm]\b\.?", lambda m: f"{cardinal(int(m[1]))} {_half(m[2])}"),
        (rf"(US\$|[$£€¥]) ?({_NUMBER})(?: ({_SCALES})\b)?", lambda m: money(m[1], m[2], m[3] or "")),
        (rf"\b({_NUMBER}) ?([€£])", lambda m: money(m[2], m[1])),
        (r"\b(\d{4})s\b", _decade),
        (r"['\u2019](\d0)s\b", _short_decade),
        (r"\b(\d+)(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1])) if len(m[1]) <= LONGEST else digits(m[1])),
        (r"\(?\b(\d{3})\)?[- ](\d{3})-(\d{4})\b", lambda m: ", ".join(digits(each) for each in m.groups())),
        (r"\b(\d{3})-(\d{4})\b", lambda m: ", ".join(digits(each) for each in m.groups())),
        (r"\b(\d+) (\d+)/(\d+)\b", lambda m: f"{decimal(m[1])} and {fraction(int(m[2]), int(m[3]))}"),
        (r"(?<![\d/.])(\d{1,3})/(\d{1,3})(?![\d/])", lambda m: fraction(int(m[1]), int(m[2]))),
        (r"\b(\d+(?:\.\d+){2,})\b", lambda m: " point ".join(decimal(each) for each in m[1].split("."))),
        (rf"(?<![\w.,])({_NUMBER})( ?)[-\u2013]\2({_NUMBER})(?![\w,]*\d)", _range),
        (rf"(?<![\w.])[-\u2212](?={_NUMBER})", "minus "),
        (rf"({_NUMBER}) ?%", lambda m: f"{decimal(m[1])} percent"),
        (rf"({_NUMBER}) ?({_UNIT})(?![\w/])", lambda m: quantity(m[1], m[2])),
        (_NUMBER, lambda m: _plain(m[0])),
    )
)
