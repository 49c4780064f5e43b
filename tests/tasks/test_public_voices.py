from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import save_file

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Event, Progress, Result, Warn
from conjure.media.audio import read_record
from conjure.media.text import Text
from conjure.models.proof_ear import Judged
from conjure.tasks.abilities import abilities, is_language_model
from conjure.tasks.public_voices import PublicVoices, PublicVoicesOptions
from tests.models.speech_t5s import speecht5, vocoder
from tests.models.voices import vits, vits_reference

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = vits_reference(num_speakers=3, speaker_embedding_size=6)
    return vits(tmp_path_factory.mktemp("vits"), model)


def run(folder: Path, text: str, seeds: tuple[int, ...] = (1,), **options: Any) -> tuple[list[Event], Result]:
    events = list(PublicVoices.load(folder).generate([Text(text)], PublicVoicesOptions(**options), seeds))
    assert isinstance(events[-1], Result)
    return events, events[-1]


def test_our_ear_listens_where_it_is_asked_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Proof:
        heard: ClassVar[list[tuple[str, ...]]] = []

        def judge(self, samples_N: np.ndarray, rate: int, words: list[str], speed: float) -> Judged:
            self.heard.append(tuple(words))
            return Judged(float(3 - len(self.heard)), (("sea", "missing"),) if "sea" in words else ())

    monkeypatch.setattr("conjure.tasks.public_voices.proof_ear", Proof)
    plain, result = (run(folder, "hello there. the sea", check=check)[1] for check in (False, True))
    assert Proof.heard == [("hello", "there."), *[("the", "sea")] * 3]
    assert (result.facts["checked"], result.facts["said_again"], result.facts["doubtful"]) == (2, 1, 1)
    first, other = plain.media[0], result.media[0]
    assert plain.facts["checked"] == 0 and first.digest() != other.digest()
    assert any("sea (missing)" in each.text for each in run(folder, "the sea", check=True)[0] if isinstance(each, Warn))


def test_sentences_are_said_one_by_one(folder: Path) -> None:
    events, result = run(folder, "hello there. the sea\n\nis blue!", pause=0.5)
    (sound,) = result.media
    assert sound.rate == RATE and sound.channels == 1 and result.facts["sentences"] == 3
    steps = [(each.step, each.total) for each in events if isinstance(each, Progress)]
    assert steps == [(0, 1), (1, 3), (2, 3), (3, 3)]
    silent = np.flatnonzero(np.convolve(sound.samples[0] == 0, np.ones(8000), "valid") == 8000)
    assert len(silent) == 2
    alone = run(folder, "hello there.")[1].media[0].samples
    assert np.array_equal(sound.samples[:, : alone.shape[1]], alone)


def test_the_seed_decides_and_each_is_its_own(folder: Path) -> None:
    both = run(folder, "the sea is blue", (3, 4))[1].media
    again = run(folder, "the sea is blue", (4,))[1].media
    assert np.array_equal(both[1].samples, again[0].samples)
    assert not np.array_equal(both[0].samples, both[1].samples)
    steady = [run(folder, "the sea", (seed,), noise=0, duration_noise=0)[1].media[0].samples for seed in (1, 2)]
    assert np.array_equal(*steady)


def test_speed_and_speaker(folder: Path) -> None:
    quiet: dict[str, Any] = {"noise": 0, "duration_noise": 0}
    usual, slow = (run(folder, "the sea", speed=speed, **quiet)[1].media[0] for speed in (None, 0.25))
    assert slow.seconds > 1.5 * usual.seconds
    other = run(folder, "the sea", speaker=2, **quiet)[1].media[0]
    assert not np.array_equal(other.samples, usual.samples)
    with pytest.raises(ConjureError, match="knows the speakers 0 to 2, not 3"):
        run(folder, "the sea", speaker=3)


def test_what_it_cannot_say_is_said(folder: Path) -> None:
    events, result = run(folder, "the sea 你好 😀.")
    assert [each.text.split(": ")[1] for each in events if isinstance(each, Warn)] == ["你好😀."]
    assert result.facts["left_out"] == "你好😀."
    assert np.array_equal(result.media[0].samples, run(folder, "the sea")[1].media[0].samples)
    with pytest.raises(ConjureError, match="nothing of this text can be said"):
        run(folder, "你好。😀")
    assert run(folder, "a" * 900)[1].facts["sentences"] == 3


def test_numbers_are_words_where_the_voice_speaks_english(folder: Path, tmp_path: Path) -> None:
    _, result = run(folder, "the sea 3 1/3\n$3")
    wanted = run(folder, "the sea three and one third\nthree dollars")[1]
    assert not result.facts["left_out"] and result.facts["sentences"] == 2
    assert np.array_equal(result.media[0].samples, wanted.media[0].samples)
    german = run(vits(tmp_path, language="deu"), "the sea 3")[1]
    assert german.facts["left_out"] == "3"


def test_the_table_leads_to_it(folder: Path, tmp_path: Path) -> None:
    assert abilities(folder) == ("speak",) and not is_language_model(folder)
    assert isinstance(conjure.load(folder), PublicVoices)
    sound = conjure.make("the sea", output=tmp_path / "a.wav", model=str(folder), seed=5, speed=1.5)
    assert sound.record.task == "speak" and sound.record.options["speed"] == 1.5
    assert (tmp_path / "a.wav").stat().st_size > 500
    with pytest.raises(ConjureError, match="no published figures"):
        PublicVoices.load(folder).evaluate_published()
    with pytest.raises(ConjureError, match="cannot continue: it can speak"):
        conjure.make("the sea", to="text", model=str(folder), task="continue")


def test_durations_that_run_away(tmp_path: Path) -> None:
    model = vits_reference()
    model.duration_predictor.flows[0].translate.data.fill_(-15)
    with pytest.raises(ConjureError, match="at most 120 s are made"):
        run(vits(tmp_path, model), "the sea is blue")


def test_characters_of_another_model(tmp_path: Path) -> None:
    folder = vits(tmp_path)
    (folder / "vocab.json").write_text('{"a": 0, "b": 99}')
    with pytest.raises(ConjureError, match="expected ids below 25, got 99"):
        run(folder, "ab")


def test_phonemes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="reads phonemes"):
        run(vits(tmp_path, phonemize=True), "the sea")


# -- SpeechT5 ----------------------------------------------------------------------------------------------------------

AGREED = "Ann Lee, by letter of 3 May"


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its vocoder beside it, and the vector of a speaker; it ends soon."""
    folder, _ = speecht5(tmp_path_factory.mktemp("t5") / "tts", "voice", over=2.0)
    vocoder(folder / "vocoder")
    np.save(folder / "ann.npy", np.random.default_rng(1).standard_normal((1, 10)))
    return folder


def test_a_cloned_voice(t5: Path) -> None:
    assert abilities(t5) == ("speak",) and not is_language_model(t5)
    how = {"voice": str(t5 / "ann.npy"), "consent": AGREED}
    events, result = run(t5, "Alice was blue. who is it?", (1, 2), **how)
    first, other = result.media
    assert first.rate == RATE and not np.array_equal(first.samples[:, :512], other.samples[:, :512])
    assert np.array_equal(run(t5, "Alice was blue. who is it?", (1,), **how)[1].media[0].samples, first.samples)
    assert not [each for each in events if isinstance(each, Warn)] and result.facts["sentences"] == 2
    assert (first.samples.shape[1] - 4000) % 512 == 0
    np.save(t5 / "bob.npy", np.random.default_rng(2).standard_normal(10))
    bob = run(t5, "Alice was blue.", voice=str(t5 / "bob.npy"), consent=AGREED)[1].media[0]
    assert not np.array_equal(bob.samples[:, :512], first.samples[:, :512])


def test_consent_is_asked_for_and_stamped(t5: Path, tmp_path: Path) -> None:
    for consent in ("", "  yes  "):
        with pytest.raises(ConjureError, match="takes that person's consent") as caught:
            run(t5, "the sea", voice=str(t5 / "ann.npy"), consent=consent)
        assert "--consent" in caught.value.hint
    made = conjure.make("the sea", output=tmp_path / "a.wav", model=str(t5), seed=1, voice=str(t5 / "ann.npy"),
                        consent=AGREED)  # fmt: skip
    assert made.record.options["consent"] == AGREED
    stamped = read_record(tmp_path / "a.wav")
    assert stamped is not None and stamped.options["consent"] == AGREED


def test_what_a_cloned_voice_takes(t5: Path, tmp_path: Path) -> None:
    with pytest.raises(ConjureError, match="expected a file of them"):
        run(t5, "the sea", consent=AGREED)
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.npy").write_bytes(b"no numbers")
    np.save(tmp_path / "c.npy", np.zeros(10))
    np.save(tmp_path / "d.npy", np.ones(512))
    np.save(tmp_path / "e.npy", np.array([object()] * 10), allow_pickle=True)
    save_file({"a": np.ones(10, np.float32), "b": np.ones(10, np.float32)}, tmp_path / "f.safetensors")
    for name, wrong in (("a.wav", "small .npy or .safetensors"), ("b.npy", "could not be read"),
                        ("c.npy", "not all of them 0"), ("d.npy", r"expected 10 numbers .* float64 \[512\]"),
                        ("e.npy", "could not be read"), ("f.safetensors", "expected one tensor, got 2"),
                        ("g.npy", "no such file")):  # fmt: skip
        with pytest.raises(ConjureError, match=wrong):
            run(t5, "the sea", voice=str(tmp_path / name), consent=AGREED)
    save_file({"a": np.ones(10, np.float32)}, tmp_path / "h.safetensors")
    how: dict[str, Any] = {"voice": str(tmp_path / "h.safetensors"), "consent": AGREED}
    events, _ = run(t5, "the sea 你", speed=2.0, **how)
    warned = [each.text for each in events if isinstance(each, Warn)]
    assert any("--speed changes nothing" in each for each in warned) and any("leaves them out: 你" in e for e in warned)
    with pytest.raises(ConjureError, match="nothing of this text can be said"):
        run(t5, "你好", **how)
    with pytest.raises(ConjureError, match="expected a HiFi-GAN vocoder, this is a speecht5"):
        run(t5, "the sea", vocoder=str(t5), **how)


def test_what_comes_to_no_end_is_said_again_and_then_cut(tmp_path: Path) -> None:
    folder, _ = speecht5(tmp_path / "tts", "voice", over=-40)
    vocoder(tmp_path / "gan")
    np.save(tmp_path / "ann.npy", np.ones(10))
    how = {"voice": str(tmp_path / "ann.npy"), "consent": AGREED, "vocoder": str(tmp_path / "gan")}
    events, result = run(folder, "the sea", **how)
    assert any("came to no end" in each.text for each in events if isinstance(each, Warn))
    assert result.media[0].samples.shape[1] == 60 * 2 * 256
