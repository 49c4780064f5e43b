from __future__ import annotations

import pytest

from conjure.codecs.spoken_text import Pause, Script, Word, read
from conjure.core.errors import ConjureError


def script(body: str) -> Script:
    return read(f"<speak>{body}</speak>")


def test_text_pauses_and_substitutes() -> None:
    (one,) = script('Hello <break time="500ms"/> <sub alias="doctor">Dr</sub> No &amp; co').utterances
    assert one.parts == (Word("hello"), Pause(0.5), Word("doctor"), Word("no"), Word("and"), Word("co"))
    assert one.source == "Hello doctor No & co"
    (two,) = script('<break strength="strong"/>now').utterances
    assert two.parts == (Pause(0.7), Word("now"))


def test_paragraphs_sentences_and_breaks_between() -> None:
    made = script("<p><s>One</s><s>two</s></p><break time='2s'/><p>three. Four</p>").utterances
    assert [each.words for each in made] == ["one", "two", "three", "four"]
    assert made[0].after < 0.2
    assert made[1].after >= 2


def test_voice_and_rate_hold_within() -> None:
    body = 'a cat <voice name="awb">b <prosody rate="50%">slow <prosody rate="fast">er</prosody></prosody></voice> end'
    made = script(body).utterances
    assert [(each.words, each.voice, each.speed) for each in made] == [
        ("a cat", "", 1.0),
        ("bee", "awb", 1.0),
        ("slow", "awb", 0.5),
        ("er", "awb", 0.625),
        ("end", "", 1.0),
    ]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("characters", "ab1", "ay bee one"),
        ("cardinal", "1,205", "one thousand two hundred five"),
        ("ordinal", "3", "third"),
        ("digits", "1984", "one nine eight four"),
        ("telephone", "555-12", "five five five one two"),
        ("date", "2026-11-21", "november twenty first twenty twenty six"),
        ("time", "12:30", "twelve thirty"),
    ],
)
def test_say_as(kind: str, text: str, said: str) -> None:
    (one,) = script(f'<say-as interpret-as="{kind}">{text}</say-as>').utterances
    assert one.words == said


def test_phonemes() -> None:
    (one,) = script('say <phoneme alphabet="x-arpabet" ph="T AH0 M EY1 T OW0">tomato</phoneme>').utterances
    assert one.parts[1] == Word("tomato", ("t", "ah", "m", "ey", "t", "ow"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("a <foo/>", r"line 1, column 10: unknown element <foo>"),
        ("\n\n <audio src='x'/>", r"line 3, column 2: unknown element"),
        ("<speak>a</speak>", "outermost"),
        ("<p>x", "mismatched tag"),
        ("a & b", "not well-formed"),
        ("<break time='20s'/>x", "at most 10 s, got '20s'"),
        ("<break time='soon'/>x", "500ms or 1.5s"),
        ("<break strength='huge'/>x", "strength 'huge'"),
        ("<break>x</break>", "holds no text"),
        ("<prosody rate='900%'>x</prosody>", "50% to 200%"),
        ("<prosody pitch='high'>x</prosody>", "no attribute 'pitch'"),
        ("<prosody>x</prosody>", "needs the attribute 'rate'"),
        ("<say-as interpret-as='song'>x</say-as>", "'song' is not known"),
        ("<say-as interpret-as='cardinal'>x</say-as>", "expected a whole number"),
        ("<sub alias='a'><p>x</p></sub>", "cannot stand within"),
        ("<phoneme ph='q'>x</phoneme>", "no phone 'q'"),
        ("<phoneme ph=''>x</phoneme>", "ph is empty"),
        ("<phoneme alphabet='ipa' ph='t'>x</phoneme>", "alphabet 'ipa'"),
    ],
)
def test_errors_have_a_place(body: str, said: str) -> None:
    with pytest.raises(ConjureError, match=said) as error:
        script(body)
    assert error.value.message.startswith("SSML, line ")


def test_documents() -> None:
    assert read('<?xml version="1.0"?>\n<speak version="1.1" xml:lang="en-US">hi there</speak>').utterances
    with pytest.raises(ConjureError, match="document type is not allowed"):
        read('<!DOCTYPE speak [<!ENTITY a "b">]><speak>&a;</speak>')
    with pytest.raises(ConjureError, match="a text to say"):
        script(" ")
