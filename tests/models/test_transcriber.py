"""A tiny random Whisper against transformers' `generate`, and long sound against its parts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

from conjure.codecs.voice_activity import Chunk, Floats
from conjure.core.errors import ConjureError
from conjure.decoding.timestamps import token_times
from conjure.media.captions import Segment
from conjure.models.language import LanguageModel
from conjure.models.transcriber import Heard, Hearing, Transcriber
from tests.models.public.references import close
from tests.models.whispers import reference, whisper

RATE = 16_000
EVERYTHING = Hearing(temperatures=(0.0,), no_speech=1.0, logprob=-99, compression=99)
"""Nothing is thought to have failed: random networks say nothing likely."""


def voice(seconds: float, seed: int = 1) -> Floats:
    """Noise in syllables, four a second."""
    at = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(at))
    return (0.2 * noise * np.sin(np.pi * 4 * at) ** 4).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Transcriber:
    return Transcriber(LanguageModel.load(folder))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return reference(folder)


def features(folder: Path, *sounds: Floats) -> Any:
    extractor = tf.WhisperFeatureExtractor.from_pretrained(folder)
    return extractor(list(sounds), sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)


def greedy(
    model: Transcriber, sounds: list[Floats], language: str, *, times: bool, translate: bool = False, prompt: str = ""
) -> list[Heard]:
    how = dataclasses.replace(EVERYTHING, translate=translate, prompt=prompt)
    begin = model.beginning(language, how, times=times)
    decoding = model.model.decoding(temperature=0, tokens=40)
    return model.write(model.memory(sounds), [begin] * len(sounds), [0] * len(sounds), decoding, times=times)


def trimmed(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def assert_same(folder: Path, model: Transcriber, theirs: Any, times: bool, task: str) -> list[Heard]:
    """What is written about three sounds in one batch, with its mean log-probability."""
    sounds = [voice(2, 1), voice(1.3, 2), 0.01 * voice(0.4, 3)]
    given = features(folder, *sounds)
    close(model.memory(sounds), theirs.model.encoder(given.input_features).last_hidden_state)
    made = theirs.generate(
        given.input_features, language="de", task=task, return_timestamps=times, max_new_tokens=40,
        force_unique_generate_call=True, logprob_threshold=-99.0, no_speech_threshold=1.0, temperature=0.0,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    found = greedy(model, sounds, "de", times=times, translate=task == "translate")
    begin = model.beginning("de", Hearing(translate=task == "translate"), times=times)
    for row, each in enumerate(found):
        ids = made.sequences[row].tolist()
        assert ids[: len(begin)] == begin
        assert each.ids == trimmed(ids[len(begin) :], model.marks.times.end)
        tokens = torch.tensor([*each.ids, *([] if each.broken else [model.marks.times.end])])
        wanted = WhisperGenerationMixin._retrieve_avg_logprobs([score[row] for score in made.scores], tokens, 0.0)
        assert each.logprob == pytest.approx(float(wanted), rel=1e-4)
    return found


@pytest.mark.parametrize("times", [False, True])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_it_writes_what_the_reference_writes(
    folder: Path, model: Transcriber, theirs: Any, times: bool, task: str
) -> None:
    found = assert_same(folder, model, theirs, times, task)
    assert len({tuple(each.ids) for each in found}) == 3 and any(len(set(each.ids)) > 5 for each in found)


@pytest.mark.parametrize("times", [False, True])
def test_texts_that_end_leave_the_batch(tmp_path: Path, times: bool) -> None:
    folder = whisper(tmp_path, seed=2)
    found = assert_same(folder, Transcriber(LanguageModel.load(folder)), reference(folder), times, "transcribe")
    assert {each.broken for each in found} == {True, False}


def test_a_prompt_comes_before(folder: Path, model: Transcriber, theirs: Any) -> None:
    ids = model.model.tokenizer.encode(" blue Paris")
    prompt = torch.tensor([model.marks.previous, *ids])
    made = theirs.generate(
        features(folder, voice(2)).input_features, language="fr", task="transcribe", max_new_tokens=20,
        prompt_ids=prompt, force_unique_generate_call=True,
    )[0].tolist()  # fmt: skip
    found = greedy(model, [voice(2)], "fr", times=False, prompt=" blue Paris ")[0].ids[:20]
    begin = model.beginning("fr", Hearing(prompt="blue Paris"), times=False)
    assert begin[: 1 + len(ids)] == prompt.tolist()
    assert found == trimmed(made[made.index(model.marks.times.without) + 1 :], model.marks.times.end)


def test_it_finds_the_language_that_the_reference_finds(folder: Path, model: Transcriber, theirs: Any) -> None:
    sounds = [voice(2, seed) for seed in range(4)]
    wanted = theirs.detect_language(features(folder, *sounds).input_features).tolist()
    found = model.languages(model.memory(sounds))
    assert [model.marks.languages[max(each, key=each.__getitem__)] for each in found] == wanted
    assert all(sum(each.values()) == pytest.approx(1) for each in found)


def test_the_chance_that_nobody_speaks(folder: Path, model: Transcriber, theirs: Any) -> None:
    given = features(folder, voice(2)).input_features
    start = torch.tensor([[model.marks.start]])
    with torch.no_grad():
        wanted = theirs(given, decoder_input_ids=start).logits[0, 0].softmax(-1)[model.marks.no_speech]
    for prompt in ("", "blue"):  # seen where the text begins, so a prompt before it changes it
        found = greedy(model, [voice(2)], "en", times=True, prompt=prompt)[0].no_speech
        assert (found == pytest.approx(float(wanted), rel=1e-4)) == (prompt == "")


def test_parts_are_read_alone_as_they_are_together(model: Transcriber) -> None:
    sounds = [voice(2, seed) for seed in range(3)]
    together = greedy(model, sounds, "en", times=True)
    assert [each.ids for each in together] == [greedy(model, [each], "en", times=True)[0].ids for each in sounds]


def test_english_alone(tmp_path: Path) -> None:
    folder = whisper(tmp_path / "tiny.en", english=True, bands=128)
    model, theirs = Transcriber(LanguageModel.load(folder)), reference(folder)
    made = theirs.generate(
        features(folder, voice(2)).input_features, return_timestamps=True, max_new_tokens=20,
        force_unique_generate_call=True,
    )[0].tolist()  # fmt: skip
    begin = model.beginning("en", Hearing())
    assert begin == [model.marks.start]
    assert greedy(model, [voice(2)], "en", times=True)[0].ids[:20] == trimmed(made[1:], model.marks.times.end)
    assert model.known("English") == "en"
    with pytest.raises(ConjureError, match="English alone, not German"):
        model.known("de")
    with pytest.raises(ConjureError, match="cannot translate"):
        list(model.transcribe(voice(2), Hearing(translate=True)))


def test_times_of_tokens_are_those_of_the_reference(folder: Path, model: Transcriber, theirs: Any) -> None:
    given = features(folder, voice(1.7))
    made = theirs.generate(
        given.input_features, attention_mask=given.attention_mask, language="de", task="transcribe",
        return_token_timestamps=True, max_new_tokens=20, force_unique_generate_call=True, return_dict_in_generate=True,
    )  # fmt: skip
    begin = len(model.beginning("de", Hearing(), times=False))
    ids = made["sequences"][0][None, :-1]
    with torch.no_grad():
        weights, logits = model.network.attention(model.memory([voice(1.7)]), ids, model.marks.heads)
        out = theirs(given.input_features, decoder_input_ids=ids, output_attentions=True, use_cache=False)
    close(weights, torch.stack([out.cross_attentions[layer][:, head] for layer, head in model.marks.heads], dim=1))
    close(logits, out.logits)
    times = token_times(weights[0, :, begin:, :85])
    assert times.tolist() == pytest.approx(made["token_timestamps"][0, begin:-1].tolist(), abs=1e-6)


# -- long sound ----------------------------------------------------------------------------------------------------


def said(model: Transcriber, sound: Floats, how: Hearing, seed: int = 0) -> list[Segment]:
    return [segment for found, _ in model.transcribe(sound, how, seed) for segment in found]


def test_silence_and_steady_noise_are_never_read(model: Transcriber) -> None:
    noise = 0.05 * np.random.default_rng(2).standard_normal(6 * RATE).astype(np.float32)
    for sound in (np.zeros(6 * RATE, np.float32), noise):
        assert said(model, sound, EVERYTHING) == []
        assert said(model, sound, dataclasses.replace(EVERYTHING, voice=None))


def test_times_are_those_of_the_whole_sound(model: Transcriber) -> None:
    pause = np.zeros(7 * RATE, np.float32)
    sound = np.concatenate([pause, voice(1.5), pause, voice(3.1, 2), pause])
    found = said(model, sound, EVERYTHING)
    spoken = [(6.7, 8.8), (15.2, 19.0)]
    inside = [[n for n, (a, b) in enumerate(spoken) if a <= each.start <= each.end <= b] for each in found]
    assert {tuple(each) for each in inside} == {(0,), (1,)}
    assert [each.start for each in found] == sorted(each.start for each in found)
    small = said(model, sound, dataclasses.replace(EVERYTHING, batch=1))
    assert [each.text for each in small] == [each.text for each in found]


def test_progress_is_in_seconds_of_the_sound(model: Transcriber) -> None:
    sound = np.concatenate([voice(3), np.zeros(6 * RATE, np.float32), voice(2)])
    done = [at for _, at in model.transcribe(sound, dataclasses.replace(EVERYTHING, batch=1))]
    assert done == sorted(done) and done[-1] == pytest.approx(11, abs=0.3) and len(done) >= 3


def test_words_lie_in_their_segments(model: Transcriber) -> None:
    sound = np.concatenate([np.zeros(2 * RATE, np.float32), voice(1.8), np.zeros(RATE, np.float32)])
    plain = said(model, sound, EVERYTHING)
    found = said(model, sound, dataclasses.replace(EVERYTHING, words=True))
    assert [each.text for each in found] == [each.text for each in plain] and any(each.words for each in found)
    for each in found:
        assert "".join(word.text for word in each.words) == "".join(each.text.split())
        times = [time for word in each.words for time in (word.start, word.end)]
        assert times == sorted(times) and times[0] >= 1.7 and times[-1] <= 4.1
        assert all(0 <= word.probability <= 1 for word in each.words)


def test_what_fails_is_drawn_again_and_the_seed_decides(model: Transcriber) -> None:
    how = Hearing(temperatures=(0.0, 0.8), logprob=-0.01, compression=99, no_speech=1.0)
    memory = model.memory([voice(2, seed) for seed in range(2)])
    begin = [model.beginning("en", how)] * 2
    first, again = model.hear(memory, begin, [1, 2], how), model.hear(memory, begin, [1, 2], how)
    assert [each.ids for each in first] == [each.ids for each in again]
    alone = model.hear(memory[1:], begin[1:], [2], how)
    assert alone[0].ids == first[1].ids
    wild = dataclasses.replace(how, temperatures=(0.8,))
    assert len({tuple(model.hear(memory[:1], begin[:1], [seed], wild)[0].ids) for seed in range(2)}) > 1


def test_the_conditions(model: Transcriber) -> None:
    good = Heard([1], -0.3, 0.1, 1.2, 0.0, False)
    how = Hearing()
    assert not good.failed(how) and not good.nobody(how)
    unlikely = dataclasses.replace(good, logprob=-1.2)
    assert unlikely.failed(how) and not unlikely.nobody(how)
    silent = dataclasses.replace(unlikely, no_speech=0.7)
    assert silent.nobody(how) and not silent.failed(how)
    assert not dataclasses.replace(good, no_speech=0.7).nobody(how)
    looped = dataclasses.replace(good, compression=2.5)
    assert looped.failed(how)
    chunk = Chunk(((0, 2 * RATE),), RATE)
    memory = model.memory([voice(2)])
    assert model._segments(memory, chunk, dataclasses.replace(looped, ids=[70, 71]), "en", how) == ([], 2.0)
    assert model._segments(memory, chunk, dataclasses.replace(silent, ids=[70, 71]), "en", how) == ([], 2.0)
    assert model._segments(memory, chunk, dataclasses.replace(good, ids=[70, 71]), "en", how)[0]


def test_what_is_left_behind_an_open_end_is_read_again(model: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    first, end, read = model.marks.times.first, model.marks.times.end, []

    def hear(_: Any, memory: Any, *rest: Any) -> list[Heard]:
        read.append(len(memory))
        ids = [first, 70, first + 40, first + 40] if len(read) == 1 else [first, 71, first + 30]
        return [Heard([*ids, end], -0.1, 0.0, 1.0, 0.0, False)]

    monkeypatch.setattr(Transcriber, "hear", hear)
    found = said(model, voice(2), EVERYTHING)
    assert read == [1, 1] and [each.text for each in found] == [model.text([70]).strip(), model.text([71]).strip()]
    assert [time for each in found for time in (each.start, each.end)] == pytest.approx([0.0, 0.8, 0.8, 1.4])


def test_languages_by_name(model: Transcriber) -> None:
    assert [model.known(each) for each in ("German", "deu", "fr", "Javanese")] == ["de", "de", "fr", "jw"]
    with pytest.raises(ConjureError, match="does not know the language 'Germn'") as caught:
        model.known("Germn")
    assert "German" in caught.value.hint
    found = said(model, voice(2), dataclasses.replace(EVERYTHING, language="Japanese"))
    assert {each.language for each in found} == {"ja"}
    found = said(model, voice(2), dataclasses.replace(EVERYTHING, language="ja", translate=True))
    assert {each.language for each in found} == {"en"}


def test_unsure_parts_are_in_the_language_of_the_others(model: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    chances = [{"en": 0.9, "de": 0.1}, {"en": 0.4, "de": 0.45}, {"en": 0.05, "de": 0.9}]
    monkeypatch.setattr(Transcriber, "languages", lambda *_: chances)
    parts = [Chunk(((0, 20 * RATE),), RATE), Chunk(((0, RATE),), RATE), Chunk(((0, 5 * RATE),), RATE)]
    assert model._spoken(torch.zeros(3), parts, "", {}) == ["en", "en", "de"]


def test_what_cannot_be_heard(folder: Path, model: Transcriber) -> None:
    with pytest.raises(ConjureError, match="at least 25 ms, got 10 ms"):
        said(model, voice(0.01), Hearing())
    with pytest.raises(ConjureError, match="no numbers"):
        said(model, np.full(RATE, np.nan, np.float32), Hearing())


def test_old_files_name_their_tokens_alone(tmp_path: Path) -> None:
    folder = whisper(tmp_path / "old", lang_to_id=None, task_to_id=None, prev_sot_token_id=None, alignment_heads=None)
    new = Transcriber(LanguageModel.load(whisper(tmp_path / "new"))).marks
    old = Transcriber(LanguageModel.load(folder)).marks
    assert old.languages == new.languages and old.tasks == new.tasks and old.previous == new.previous
    assert old.heads == tuple((layer, head) for layer in (1, 2) for head in range(4))
    said = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({k: v for k, v in said.items() if k != "eos_token_id"}))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token_id"}))
    with pytest.raises(ConjureError, match="expected decoder_start_token_id, eos_token_id"):
        _ = Transcriber(LanguageModel.load(folder)).marks
