"""Which languages a translation is between: as somebody says it, and as the text itself tells."""

from __future__ import annotations

import re

from conjure.codecs.language_names import is_language

_FROM = re.compile(r"\bfrom\s+(\S+(?:\s+\S+)?)\s+(?=(?:in)?to\b)", re.IGNORECASE)
_TO = re.compile(r"\b(?:into|to|in)\s+([^\s.,;:!]+(?:[ -][^\s.,;:!]+)*)\s*[.!]*\s*$", re.IGNORECASE)
_SPANISH = frozenset(
    "al algo alguien aquí así bien casa como cómo con cuando cuándo cuánto de del desde donde dónde dos e el él ella "
    "ellos en entre era eres es esa ese eso esta está están estaba este esto estos estoy fue gracias ha hablar hace "
    "han hay he hola la las le les lo los más mi mis mucho muchos muy nada nadie ni nos nosotros nuestro o para pero "
    "por porque puede puedes puedo que qué quién quiere quiero se sé señor ser soy si sí sin sobre solo su sus también "
    "tengo tiene tienes todo todos trabajo tu tú un una uno usted va vamos y ya yo".split()
)
_ENGLISH = frozenset(
    "about all am an and are as at be been but by can could did do does don't for from go good got had has have he "
    "hello her here him his house how i i'm if in is isn't it it's just know like man more my new not now of on "
    "one or our out people she should so some than that the their them there they this time to two up us very want "
    "was we well were what when where which who why will with work would yes you your".split()
)
_LETTERS = re.compile(r"[ñáéíóúü¿¡]")
_ENDING = re.compile(r"\w\w(?:[aio]|[ao]s|[ai]r|d[ao]d|mos)$")
_WORDS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def languages(instruction: str, source: str, target: str) -> tuple[str, str]:
    """(from, into) as the options say, else as "translate from French to Spanish" does; empty where neither does."""
    if not source and (found := _FROM.search(instruction)):
        source = next((each for each in (found[1], found[1].split()[-1]) if is_language(each)), found[1])
    if not target and (found := _TO.search(instruction)):
        target = found[1]
    return source.strip(), target.strip()


def likely(text: str) -> str:
    """ "es" or "en": the language of more of the commonest words of a text; English where nothing tells.

    A letter that English does not have counts as a Spanish word, an ending that is rare in English as half a one.
    """
    words = [word.replace("’", "'") for word in _WORDS.findall(text.casefold())]
    spanish = sum(word in _SPANISH for word in words) + len(_LETTERS.findall(text.casefold()))
    spanish += 0.5 * sum(_ENDING.search(word) is not None for word in words)
    return "es" if spanish > sum(word in _ENGLISH for word in words) else "en"
