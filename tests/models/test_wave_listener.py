"""Tiny random models of the wav2vec 2.0 kind against transformers: log-probabilities, letters, times of words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from conjure.core.errors import ConjureError
from conjure.decoding.ctc import greedy
from conjure.models.listener import Listener
from conjure.models.transcriber import Hearing
from conjure.models.wave_listener import languages, load_listener
from tests.models.letters import HEARD, RATE, letters, mms, voice, write_files
from tests.models.public.references import close, randomised

KINDS = ("base", "large", "hubert")
EVERYTHING = Hearing(voice=None, words=True)


def reference(folder: Path, **more: Any) -> tuple[Any, Any]:
    """(network, processor)"""
    kind = tf.HubertForCTC if "hubert" in folder.name else tf.Wav2Vec2ForCTC
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        model = kind.from_pretrained(folder, **({"ignore_mismatched_sizes": True} if more else {}), **more).eval()
    front = tf.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    processor = tf.Wav2Vec2Processor(front, tf.Wav2Vec2CTCTokenizer.from_pretrained(folder, **more))
    return model.requires_grad_(False), processor


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letters(tmp_path_factory.mktemp(request.param), kind=request.param)


def assert_same(listener: Listener, model: Any, processor: Any, sound: np.ndarray) -> str:
    """What is heard in one sound, as there."""
    given = processor(sound, sampling_rate=RATE, return_tensors="pt")
    logits = model(given.input_values, attention_mask=given.get("attention_mask")).logits
    (heard,) = listener.hear([sound])
    found = heard.logits_TV
    close(found, logits[0].log_softmax(-1))
    said = processor.batch_decode(logits.argmax(-1), output_word_offsets=True)
    ids = [piece.id for piece in greedy(found, listener.blank)]
    assert processor.tokenizer.decode(ids, group_tokens=False) == said.text[0]
    assert listener.text(heard) == " ".join(said.text[0].split())
    segments = next(each for each, _ in listener.transcribe(sound, EVERYTHING))
    assert " ".join(each.text for each in segments) == listener.text(heard)
    words = [(word.text, word.start, word.end) for each in segments for word in each.words]
    wanted = [(each["word"], 0.02 * each["start_offset"], 0.02 * each["end_offset"]) for each in said.word_offsets[0]]
    assert [each[0] for each in words] == [each[0] for each in wanted] and len(wanted) > 2
    assert np.allclose([each[1:] for each in words], [each[1:] for each in wanted])
    return said.text[0]


def test_letters_and_times_are_those_of_the_reference(folder: Path) -> None:
    _, listener = load_listener(folder)
    assert (listener.rate, listener.hop, listener.least, listener.blank) == (RATE, 320, 400, 0)
    texts = {assert_same(listener, *reference(folder), voice(2.03, seed)) for seed in range(3)}
    assert len(texts) == 3


def test_parts_are_read_together_as_they_are_alone(folder: Path) -> None:
    _, listener = load_listener(folder)
    sounds = [voice(seconds, 4) for seconds in (1.3, 0.7, 2.0, 0.026)]
    for sound, found in zip(sounds, listener.hear(sounds), strict=True):
        close(found.logits_TV, listener.hear([sound])[0].logits_TV)
        assert len(found.logits_TV) == (len(sound) - 80) // 320


@pytest.mark.parametrize(("asked", "code"), [("German", "deu"), ("azj-script_latin", "azj-script_latin"), ("", "eng")])
def test_a_language_brings_its_adapters_and_letters(tmp_path: Path, asked: str, code: str) -> None:
    folder = mms(tmp_path, ("deu", "azj-script_latin", "eng"))
    assert languages(folder) == ("eng", "deu", "azj-script_latin")
    _, listener = load_listener(folder, language=asked)
    assert listener.language == code
    assert_same(listener, *reference(folder, target_lang=code), voice(2, 7))


def test_the_language_of_the_weights_needs_no_file(tmp_path: Path) -> None:
    _, listener = load_listener(mms(tmp_path), language="English")
    first = listener.hear([voice(1)])[0].logits_TV
    _, other = load_listener(tmp_path, language="deu")
    assert other.hear([voice(1)])[0].logits_TV.shape[1] == first.shape[1] + 4 == 18
    _, small = load_listener(tmp_path, "int8", "deu")
    assert float((small.hear([voice(1)])[0].logits_TV - other.hear([voice(1)])[0].logits_TV).abs().max()) > 0


def test_languages_that_are_not_there(tmp_path: Path) -> None:
    folder = mms(tmp_path)
    with pytest.raises(ConjureError, match="does not know the language 'Klingon'") as caught:
        load_listener(folder, language="Klingon")
    assert "it knows eng, deu, azj-script_latin" in caught.value.hint
    (folder / "adapter.deu.safetensors").unlink()
    with pytest.raises(ConjureError, match=r"has no adapter\.deu\.safetensors") as caught:
        load_listener(folder, language="de")
    assert "azj-script_latin" in caught.value.hint
    said = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**said, "target_lang": None}))
    with pytest.raises(ConjureError, match="hears 3 languages and cannot tell them apart"):
        load_listener(folder)


def test_old_names_of_weight_norm(folder: Path, tmp_path: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    for new, old in (("parametrizations.weight.original0", "weight_g"),
                     ("parametrizations.weight.original1", "weight_v")):  # fmt: skip
        assert any(name.endswith(new) for name in tensors)
        tensors = {name.replace(new, old): each for name, each in tensors.items()}
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    old, new = (load_listener(each)[1].hear([voice(1)])[0].logits_TV for each in (tmp_path, folder))
    assert torch.equal(old, new)


def test_lower_case(tmp_path: Path) -> None:
    folder = letters(tmp_path, do_lower_case=True)
    assert load_listener(folder)[1].write(" THE ") == "the"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    folder = letters(tmp_path / "base")
    front = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps({**front, "sampling_rate": "fast"}))
    with pytest.raises(ConjureError, match="sampling_rate: expected a number of Hz, got 'fast'"):
        load_listener(folder)
    (folder / "preprocessor_config.json").unlink()
    assert load_listener(folder)[1].rate == RATE
    write_files(folder, {"a": 0, "b": 1, "<unk>": 2, "<pad>": 99}, mask=False)
    with pytest.raises(ConjureError, match="expected the blank below 14, got 99"):
        load_listener(folder)
    (folder / "vocab.json").write_text("[")
    with pytest.raises(ConjureError, match="no valid JSON"):
        load_listener(folder)
    (folder / "vocab.json").unlink()
    with pytest.raises(ConjureError, match=r"has no vocab\.json"):
        load_listener(folder)
    headless = tf.Wav2Vec2Model(tf.Wav2Vec2Config(**HEARD))
    randomised(headless).save_pretrained(tmp_path / "headless")  # type: ignore[operator]
    write_files(tmp_path / "headless", {"<pad>": 0, "<unk>": 1}, mask=False)
    with pytest.raises(ConjureError, match="headless gives no letters"):
        load_listener(tmp_path / "headless")


def test_short_and_broken_sound(tmp_path: Path) -> None:
    _, listener = load_listener(letters(tmp_path))
    with pytest.raises(ConjureError, match="at least 25 ms, got 10 ms"):
        list(listener.transcribe(voice(0.01), EVERYTHING))
    with pytest.raises(ConjureError, match="no numbers"):
        list(listener.transcribe(np.full(RATE, np.nan, np.float32), EVERYTHING))
    assert torch.isfinite(listener.hear([np.zeros(RATE, np.float32)])[0].logits_TV).all()


@pytest.mark.parametrize(("place", "hint"), [
    ("models--facebook--mms-1b-all/snapshots/0a1b", "conjure models get facebook/mms-1b-all --language deu"),
    ("own", "fetch that file into the folder"),
])  # fmt: skip
def test_how_to_get_the_adapter_of_a_language(tmp_path: Path, place: str, hint: str) -> None:
    """By the name that the model has in the hub's cache, where it lies there."""
    with pytest.raises(ConjureError, match=r"has no adapter\.deu\.safetensors") as caught:
        load_listener(mms(tmp_path / place, adapters=("azj-script_latin",)), language="German")
    assert caught.value.hint == f"{hint}; adapters are there for azj-script_latin"
