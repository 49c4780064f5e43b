from __future__ import annotations

import json

import numpy as np
import pytest

from conjure.media.image import Image
from conjure.studio.talk import ASSISTANT, FIRST, USER, Talk, Turn, harmless, markdown, messages, plain, unshielded


def talked() -> Talk:
    talk, first = Talk().said(Turn(role=USER, text="one?"))
    talk, answer = talk.said(Turn(role=ASSISTANT, text="1", above=first, model="m", tokens=1))
    talk, second = talk.said(Turn(role=USER, text="two?", above=answer))
    return talk.said(Turn(role=ASSISTANT, text="2", above=second, model="m"))[0]


def test_what_is_said_again_begins_a_branch_and_nothing_is_lost() -> None:
    talk, number = talked().said(Turn(role=USER, text="three?", above=1))
    talk, _ = talk.said(Turn(role=ASSISTANT, text="3", above=number))
    assert [turn.text for turn in talk.shown] == ["one?", "1", "three?", "3"]
    assert talk.forks == [number] and talk.versions(number) == [2, number]
    back = talk.stepped(number, -1)
    assert [turn.text for turn in back.shown] == ["one?", "1", "two?", "2"]
    assert back.stepped(2, -1).path == back.path  # there is none before the first
    assert back.stepped(2, 1).path == talk.path


def test_another_answer_stands_beside_the_first() -> None:
    talk, number = talked().said(Turn(role=ASSISTANT, text="II", above=2))
    assert talk.shown[-1].text == "II" and talk.versions(number) == [3, number]
    assert [turn.text for turn in talk.before(number)] == ["one?", "1", "two?"]


def test_a_turn_is_filled_while_it_is_written() -> None:
    talk = talked()
    assert talk.with_turn(3, text="2!", tokens=2).shown[-1].tokens == 2
    assert talk.shown[-1].text == "2", "the talk before stays as it was"
    assert talk.turns[0].above == FIRST


def test_models_are_given_what_has_words() -> None:
    talk, _ = talked().said(Turn(role=USER, text="", above=3))
    said = messages(talk.shown, "Be short.")
    assert [each["role"] for each in said] == ["system", "user", "assistant", "user", "assistant"]
    assert messages(talk.shown, " ")[0]["role"] == "user"


def test_it_is_exported_for_people_and_for_programs() -> None:
    picture = Image(np.zeros((2, 3, 3), np.uint8))
    talk, _ = talked().said(Turn(role=USER, text="look", pictures=(picture,), above=3))
    talk, number = talk.said(Turn(role=USER, text="other", above=1))
    talk, _ = talk.said(Turn(role=ASSISTANT, text="3", above=number, model="m", system="Be short."))
    text = markdown(talk)
    assert "**System**\n\nBe short." in text and "two?" not in text and "**m**\n\n3" in text
    values = json.loads(json.dumps(plain(talk)))
    assert [each["text"] for each in values["turns"]] == ["one?", "1", "two?", "2", "look", "other", "3"]
    assert values["turns"][4]["pictures"] == [picture.digest()] and values["shown"] == [0, 1, 5, 6]
    assert values["turns"][0]["follows"] is None and values["turns"][5]["follows"] == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("a <b>c</b>", "a \\<b>c\\</b>"),
        ("2 < 3", "2 \\< 3"),
        ("![x](http://far/y.png)", "\\![x](http://far/y.png)"),
        ("`<b>` and <i>", "`<b>` and \\<i>"),
        ("```html\n<b>\n```\n<i>", "```html\n<b>\n```\n\\<i>"),
        ("```\n<b> is being written", "```\n<b> is being written"),
        ("``a ` <b>`` <i>", "``a ` <b>`` \\<i>"),
        ("~~~\n<b>\n~~~\n<i>", "~~~\n<b>\n~~~\n\\<i>"),
        ("plain", "plain"),
    ],
)
def test_tags_are_characters_and_code_stays(said: str, shown: str) -> None:
    assert harmless(said) == shown
    assert unshielded(shown) == said
