from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import conjure
from conjure.core.errors import ConjureError
from tests.tasks.small_models import TEMPLATE, decoder, encoder, t5

QUESTION = "who wrote it ?"


def document(folder: Path, *inputs: str, **options: Any) -> dict[str, Any]:
    out = folder.parent / "out.json"
    conjure.make(*inputs, task="answer", model=str(folder), output=out, seed=1, **options)
    return json.loads(out.read_text())


def test_the_best_span_of_a_text_in_one_window(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "ForQuestionAnswering")
    text, ours = "Alice wrote a letter in Paris .", conjure.load(folder)
    ids, _ = ours.tokenizer.encode_pair(QUESTION, text)
    begins, ends = ours.logits([ids])[0].unbind(-1)
    first = len(ids) - 1 - len(ours.tokenizer.encode(text))
    places = [(b, e) for b in range(first, len(ids) - 1) for e in range(b, len(ids) - 1)]
    values = torch.stack([begins[b] + ends[e] for b, e in places])
    begin, end = places[int(values.argmax())]
    found = document(folder, text, QUESTION, must=True)
    words = text.split()
    assert found["answer"] == " ".join(words[begin - first : end - first + 1])
    assert text[found["start"] : found["end"]] == found["answer"]
    every = torch.cat([values, (begins[0] + ends[0])[None]])
    assert found["score"] == pytest.approx(float(every.softmax(0)[int(values.argmax())]), rel=1e-4)
    assert len(document(folder, text, QUESTION, must=True, longest=1)["answer"].split()) == 1


@pytest.mark.parametrize("silent", [False, True])
def test_an_answer_at_the_end_of_a_long_text_and_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    folder = encoder(tmp_path / "m", "ForQuestionAnswering")
    ours = conjure.load(folder)
    text = "the sea was blue . " * 20 + "Alice wrote it ."
    alice = ours.tokenizer.id("Alice")

    def judged(self: Any, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        logits = torch.zeros(*input_ids.shape, 2)
        logits[input_ids == alice] = 5.0
        logits[:, 0] = 6.0 if silent else 1.0
        return logits

    monkeypatch.setattr(type(ours), "logits", judged)
    found = document(folder, text, QUESTION)
    assert found["answer"] == (None if silent else "Alice")
    assert found["text"] == ("no answer" if silent else "Alice")
    assert found["start"] == (None if silent else text.index("Alice"))


def test_a_text_and_a_question_are_needed(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "m", "ForQuestionAnswering")
    with pytest.raises(ConjureError, match="expected a text and a question"):
        document(folder, QUESTION)
    with pytest.raises(ConjureError, match="what stands beside the text"):
        document(folder, "Alice wrote it .", "who " * 40)


def test_others_write_their_answer(tmp_path: Path) -> None:
    for folder in (decoder(tmp_path / "chat", template=TEMPLATE), t5(tmp_path / "t5")):
        assert document(folder, "Alice wrote it .", QUESTION, tokens=4)["question"] == QUESTION
    with pytest.raises(ConjureError, match="chat template"):
        document(decoder(tmp_path / "plain"), "Alice wrote it .", QUESTION)
