from __future__ import annotations

from pathlib import Path

import pytest

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Delta, Event, Warn
from conjure.media import Text, captions
from conjure.tasks.language_path import cues, tag, translated
from conjure.tasks.make import plan
from tests.conftest import write_model
from tests.tasks.interpreters import SAID, Turn, TurnOptions, install, know


@pytest.fixture(autouse=True)
def starters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return install(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "code"),
    [("talk.es.txt", "es"), ("a/talk.es.srt", "es"), ("a.b.es.wav", "es"), ("talk.txt", ""), ("a.b.txt", ""),
     ("talk.spa.txt", ""), ("es.txt", ""), (".es.txt", ""), ("talk.xx.txt", ""), ("es.d/talk.txt", "")],
)  # fmt: skip
def test_a_tag_is_a_code_between_a_name_and_a_suffix(name: str, code: str) -> None:
    assert tag(name) == code


def tasks(*inputs: str, **wish: str) -> list[str]:
    return [edge.task for edge in plan(*inputs, **wish).edges]


def test_the_steps_that_the_kinds_need() -> None:
    assert tasks("talk.wav", output="talk.es.txt") == ["transcribe", "translate"]
    assert tasks("talk.wav", output="talk.en.wav") == ["transcribe", "translate", "speak"]
    assert tasks("letter.txt", output="letter.es.txt") == ["translate"]
    assert tasks("letter.txt", output="letter.en.wav") == ["translate", "speak"]
    assert tasks("text:good morning", output="hello.es.txt") == ["translate"]


def test_names_without_a_wish_work_as_ever() -> None:
    assert tasks("letter.txt", output="a.b.txt") == ["continue"]
    assert tasks("letter.txt", output="letter.es.txt", task="continue") == ["continue"]
    assert tasks("talk.wav", output="talk.es.txt", task="transcribe") == ["transcribe"]
    Path("talk.es.txt").write_text("Buenos dias")
    assert tasks("talk.es.txt", output="letter.es.txt") == ["continue"]
    assert tasks("talk.es.txt", output="talk.es.wav") == ["speak"]
    assert tasks("letter.txt", "translate to es", output="letter.es.txt") == ["translate"]


def test_a_text_is_spoken_at_once_and_composed_when_that_is_asked() -> None:
    assert tasks("hello", output="hello.wav") == ["speak"]
    assert tasks("in G minor", output="piece.wav", task="compose") == ["compose", "play"]
    assert tasks("in G minor", output="piece.wav", task="play") == ["compose", "play"]


def test_names_settle_the_options_of_every_step() -> None:
    Path("talk.wav").rename("talk.en.wav")
    planned = plan("talk.en.wav", output="talk.es.srt", shout=True)
    (heard,) = planned.before
    assert (heard.format, heard.language) == ("srt", "en")
    assert (planned.options.target, planned.options.source, planned.options.shout) == ("es", "en", True)
    assert planned.models == ("starter/hearer", "starter/turner")


def test_captions_keep_their_times() -> None:
    for suffix, read in (("srt", captions.as_srt), ("vtt", captions.as_vtt)):
        conjure.make("talk.wav", output=f"talk.es.{suffix}", seed=1)
        wanted = [captions.Segment(each.start, each.end, f"{each.text} <>es>") for each in SAID]
        assert Path(f"talk.es.{suffix}").read_text().strip() == read(wanted).strip()


def test_captions_are_translated_one_by_one_where_lines_were_joined() -> None:
    text = captions.as_srt(SAID)
    events = list(translated(Turn(), Text(text), TurnOptions(target="es", joined=True), [1, 2]))
    assert not any(isinstance(event, Delta) for event in events)
    both = [str(each) for each in events[-1].media]  # type: ignore[union-attr]
    assert both[0] == both[1] == text.replace("morning.", "morning. <>es>").replace("toast", "toast <>es>")


def test_captions_are_told_from_texts() -> None:
    assert cues("1\nA line\n2\nAnother") is None and cues("Dear Tom,\n\ncome.") is None and cues("WEBVTT\n") is None
    found = cues("WEBVTT - title\n\nNOTE none\n\nintro\n00:01.000 --> 00:02.000 align:start\nTea &amp;\ntoast\n\n"
                 "00:03.000 --> 00:04.000\n\n00:05.000 --> 00:06.000\nyes\n")  # fmt: skip
    assert found is not None and found.texts == ("Tea & toast", "yes")
    assert found.saying(["Té & pan -->", "sí"]).endswith(
        "align:start\nTé &amp; pan -&gt;\n\n00:03.000 --> 00:04.000\n\n00:05.000 --> 00:06.000\nsí\n"
    )
    windows = cues("\ufeff1\r\n00:00:01,000 --> 00:00:02,000\r\nyes\r\n")
    assert windows is not None and windows.texts == ("yes",)


def test_the_path_is_told_with_its_models_and_texts_between_are_not_shown() -> None:
    seen: list[Event] = []
    conjure.make("talk.wav", output="talk.en.wav", seed=1, on_event=seen.append)
    assert [each.text for each in seen if isinstance(each, Warn)] == [
        "talk.en.wav asks for English: going audio -> text (transcribe, starter/hearer) -> text (translate, "
        "starter/turner) -> audio (speak, starter/sayer)"
    ]
    assert not any(isinstance(each, Delta) for each in seen)
    assert conjure.read("talk.en.wav").samples.shape[1] == len("Good morning. Tea & toast <>en>")


def test_a_voice_that_does_not_know_the_language_is_refused_before_anything_runs(starters: Path) -> None:
    with pytest.raises(ConjureError, match="starter/sayer knows English, not Spanish") as caught:
        plan("talk.wav", output="talk.es.wav")
    assert "--model facebook/mms-tts-spa" in caught.value.hint
    know(starters / "sayer", "es")
    assert plan("talk.wav", output="talk.es.wav").models[-1] == "starter/sayer"
    with pytest.raises(ConjureError, match="starter/turner knows English, Spanish, not French"):
        plan("letter.txt", output="letter.fr.txt")
    Path("talk.wav").rename("talk.es.wav")
    with pytest.raises(ConjureError, match="starter/hearer knows English, not Spanish"):
        plan("talk.es.wav", output="talk.en.txt")


def test_models_serve_the_steps_that_they_can(tmp_path: Path) -> None:
    for name, task in (("ear", "hear"), ("mouth", "speak")):
        write_model(tmp_path / name, task=task)
    know(tmp_path / "mouth", "es")
    ear, mouth = str(tmp_path / "ear"), str(tmp_path / "mouth")
    assert plan("talk.wav", output="talk.es.txt", model=ear).models == (ear, "starter/turner")
    assert plan("talk.wav", output="talk.es.wav", model=f"{ear},{mouth}").models == (ear, "starter/turner", mouth)
    with pytest.raises(ConjureError, match="can do no step of this path: transcribe, translate"):
        plan("talk.wav", output="talk.es.txt", model=mouth)


def test_a_record_makes_the_same_again() -> None:
    conjure.make("talk.wav", output="talk.es.srt", seed=1)
    conjure.make("talk.wav", output="talk.en.wav", seed=1)
    assert str(conjure.remake("talk.es.srt")).strip() == Path("talk.es.srt").read_text().strip()
    again = conjure.remake("talk.en.wav")
    assert again.digest() == conjure.read("talk.en.wav").digest()
    assert dict(again.record.options)["models"] == "starter/hearer,starter/turner,starter/sayer"
