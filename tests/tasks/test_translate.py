from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

import conjure
from conjure.core.errors import ConjureError
from conjure.core.events import Delta
from conjure.tasks.translate import languages
from tests.tasks.small_models import TEMPLATE, decoder, m2m100, marian, t5

TEXT = "the sea was blue . the letter was red .\n\nAlice wrote it ."


def document(folder: Path, **options: Any) -> dict[str, Any]:
    out = folder.parent / "out.json"
    conjure.make(TEXT, task="translate", model=str(folder), output=out, seed=1, **options)
    return json.loads(out.read_text())


def reference(model: Any, ids: list[int], **options: Any) -> list[int]:
    made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=8, **options)
    return made[0, 1:].tolist()


def test_a_pair_reads_every_sentence_and_keeps_what_stands_between(tmp_path: Path) -> None:
    folder = marian(tmp_path / "m", source_lang="en", target_lang="es")
    found = document(folder, tokens=8, logprobs=True)
    sources = [each["source"] for each in found["passages"]]
    assert sources == ["the sea was blue .", "the letter was red .", "Alice wrote it ."]
    assert "\n\n" in found["text"] and found["task"] == "translate" and found["target"] == "Spanish"
    model, ours = tf.MarianMTModel.from_pretrained(folder), conjure.load(folder)
    for each in found["passages"]:
        wanted = reference(model, ours.tokenizer.encode(each["source"], special=True), num_beams=1)
        assert [token["id"] for token in each["tokens"]] == wanted[: len(each["tokens"])]


def test_a_pair_refuses_another_language(tmp_path: Path) -> None:
    folder = marian(tmp_path / "m", source_lang="en", target_lang="es")
    assert document(folder, tokens=2, target="Spanish")["text"]
    with pytest.raises(ConjureError, match="does not translate into French: it translates English into Spanish"):
        document(folder, target="fr")


def test_many_languages_force_the_first_token(tmp_path: Path) -> None:
    folder = m2m100(tmp_path / "m")
    ours, model = conjure.load(folder), tf.M2M100ForConditionalGeneration.from_pretrained(folder)
    mark = ours.tokenizer.id("__es__")
    found = document(folder, target="Spanish", source="fr", tokens=8, logprobs=True)
    assert found["target"] == "es" and found["source"] == "fr"
    first = found["passages"][0]
    ids = ours.tokenizer.encode(first["source"], special=True, language="fr")
    assert ids[0] == ours.tokenizer.id("__fr__")
    wanted = reference(model, ids, forced_bos_token_id=mark, num_beams=1)
    assert [token["id"] for token in first["tokens"]] == wanted[: len(first["tokens"])] and wanted[0] == mark
    with pytest.raises(ConjureError, match="into which language"):
        document(folder)
    with pytest.raises(ConjureError, match="does not know the language 'Spansh'") as caught:
        document(folder, target="Spansh")
    assert "Spanish" in caught.value.hint


def test_t5_reads_its_prefix(tmp_path: Path) -> None:
    said = {"translation_en_to_de": {"prefix": "translate English to German: "}}
    folder = t5(tmp_path / "m", task_specific_params=said)
    assert document(folder, target="de", tokens=2)["target"] == "German"
    with pytest.raises(ConjureError, match="not trained to translate English to Spanish") as caught:
        document(folder, target="es")
    assert "translate English to German" in caught.value.hint


def test_a_chat_is_asked_and_a_text_and_an_instruction_are_enough(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "m", template=TEMPLATE)
    pieces: list[str] = []
    made = conjure.make(
        TEXT, "translate from French to Spanish", model=str(folder), seed=1, tokens=4,
        on_event=lambda event: pieces.append(event.text) if isinstance(event, Delta) else None,
    )  # fmt: skip
    assert made.record.task == "translate" and "".join(pieces) == str(made)
    plain = decoder(tmp_path / "plain")
    with pytest.raises(ConjureError, match="chat template"):
        conjure.make(TEXT, "translate to Spanish", model=str(plain))


def test_long_texts_are_cut_inside_a_sentence_too(tmp_path: Path) -> None:
    folder = marian(tmp_path / "m")
    made = tmp_path / "out.json"
    text = "the sea was blue and red " * 30
    conjure.make(text, task="translate", model=str(folder), output=made, tokens=2, seed=0)
    passages = [each["source"] for each in json.loads(made.read_text())["passages"]]
    assert " ".join(passages).split() == text.split() and len(passages) > 3


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("translate to Spanish", ("", "Spanish")), ("Translate into Haitian Creole.", ("", "Haitian Creole")),
        ("translate this from French to English", ("French", "English")), ("translate", ("", "")),
        ("translate the letter in de", ("", "de")),
    ],
)  # fmt: skip
def test_languages_of_an_instruction(said: str, wanted: tuple[str, str]) -> None:
    assert languages(said, "", "") == wanted
    assert languages(said, "it", "pt") == ("it", "pt")
